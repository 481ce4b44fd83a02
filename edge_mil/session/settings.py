"""What a session is opened with: fixed, or verdicts would depend on the order of fields."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_mil.errors import PixelSizeError, StoreError
from edge_mil.types import Region, check_mpp


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How the fields of one session are read.

    Attributes:
        mpp: Pixel size of the camera on the slide, um/px.
        mpp_source: Who says so: declared, optics or calibration.
        independent: Fields have places instead of stage positions, and sizes may differ.
        calibration_id: Name of the calibration that it runs under; "" for none.
        calibration_digest: Digest of the same: the session goes on under no other.
        stage: Fields say where they lie; without a stage they are found by their pictures.
        stage_affine: Camera pixel to stage um, row-major 2 x 2, from the picture's centre; None:
            mpp times the identity.
        background: Colour of empty glass after the calibration's correction, RGB 0 to 255; None:
            the bundle's nominal one.
        gates: Thresholds of the gates, as `GateSettings.as_json`; a session fixes them when it
            is opened. None: not yet, or opened before there were gates.
        allow_enlargement: Cells are cut from a camera more than 1.5 times coarser than the model
            too: their detail is not there, and the user said that it may be so.
        area: What is read, stage um: pixels beyond it count for nothing; None: everything.
        tissue: Outline of the tissue where it is known, stage um.
        slide_label: The client's name for the slide; never logged.
        labels: The client's own names and values.
        request_id: The client's idempotency key.
        request_digest: SHA-256 of the request that the key stands for.

    Raises:
        PixelSizeError: The pixel size is missing or cannot be one.
    """

    mpp: float
    mpp_source: str = "declared"
    independent: bool = False
    calibration_id: str = ""
    calibration_digest: str = ""
    stage: bool = True
    stage_affine: tuple[float, float, float, float] | None = None
    background: tuple[float, ...] | None = None
    gates: Mapping[str, float] | None = None
    allow_enlargement: bool = False
    area: Region | None = None
    tissue: tuple[Region, ...] = ()
    slide_label: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    request_digest: str = ""

    def __post_init__(self) -> None:
        """Check the pixel size; it is never guessed."""
        if self.mpp is None:
            raise PixelSizeError(
                "The pixel size is unknown; say how many micrometres on the slide one camera "
                "pixel is (20x is often 0.5)."
            )
        check_mpp(self.mpp)

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> SessionSettings:
        """Read what `to_json` wrote.

        Raises:
            StoreError: The text is not that.
        """
        try:
            raw = json.loads(text)
            tissue = tuple(Region(**region) for region in raw.pop("tissue"))
            affine, area = raw.pop("stage_affine", None), raw.pop("area", None)
            background = raw.pop("background", None)
            return SessionSettings(
                tissue=tissue,
                background=None if background is None else tuple(background),
                stage_affine=None if affine is None else tuple(affine),
                area=None if area is None else Region(**area),
                **raw,
            )
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"The stored settings of a session cannot be read ({error})."
            ) from error
