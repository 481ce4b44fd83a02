"""The settings of a session: fixed when it is opened, so that verdicts never depend on order."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from edge_mil.calibration import NOT_VERIFIED
from edge_mil.errors import PixelSizeError, StoreError, UsageError
from edge_mil.limits import MAX_IDLE_S, MAX_REGIONS, check_region
from edge_mil.types import Region, check_mpp


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How the fields of one session are read.

    Attributes:
        mpp: Pixel size of the camera on the slide, µm/px.
        mpp_source: Where it comes from: declared, optics or calibration.
        independent: Fields have location ids instead of stage positions, and sizes may differ.
        calibration_id: Name of the calibration that it runs under; "" for none.
        calibration_digest: Digest of the same; the session goes on under no other.
        stage: Fields have stage positions; without a stage they are registered by their content.
        stage_affine: Camera pixel to stage µm, row-major 2 x 2, from the frame's centre; None:
            mpp times the identity.
        background: Colour of empty glass after the calibration's correction, RGB 0 to 255; None:
            the bundle's nominal one.
        gates: Thresholds of the quality gates, as `GateSettings.as_json`; None in sessions of
            releases that had none.
        camera: Whether a passport says what the camera does to the bundle: "verified" or "not
            verified".
        camera_bound: The passport's 95 % bound of the shift of a score; None without a passport.
        camera_note: Why the camera is not verified; "" where it is, and in sessions of releases
            without passports.
        allow_enlargement: Cells are also cut from a camera more than 1.5 times coarser than the
            model. Their detail is missing, and the user accepted that.
        insist_light: Fields whose light contradicts the background are counted, as the user asked;
            the session's state still says so.
        area: The part of the slide that is read, stage µm; None: all of it.
        tissue: Outline of the tissue where it is known, stage µm.
        insist_geometry: Fields are counted also where the images contradict pixel size or stage.
        idle_timeout_s: The session expires when no field comes for so long, seconds; 0: never.
        slide_label: The client's name for the slide; never logged.
        labels: The client's own names and values.
        request_id: The client's idempotency key.
        request_digest: SHA-256 of the request that the key stands for.

    Raises:
        PixelSizeError: The pixel size is missing or cannot be one.
        UsageError: A rectangle cannot lie on a stage, or there are too many.
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
    camera: str = NOT_VERIFIED
    camera_bound: float | None = None
    camera_note: str = ""
    allow_enlargement: bool = False
    insist_light: bool = False
    area: Region | None = None
    tissue: tuple[Region, ...] = ()
    insist_geometry: bool = False
    idle_timeout_s: float = 0.0
    slide_label: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    request_digest: str = ""

    def __post_init__(self) -> None:
        """Check every number and text; the pixel size is never guessed."""
        if self.mpp is None:
            raise PixelSizeError(
                "The pixel size is unknown; say how many micrometres on the slide one camera "
                "pixel is (20x is often 0.5)."
            )
        check_mpp(self.mpp)
        if self.area is not None:
            check_region(self.area, "The area to read", "stage.area")
        if not 0 <= self.idle_timeout_s <= MAX_IDLE_S:
            raise UsageError(
                f"The idle timeout is {self.idle_timeout_s:g} s and may be up to {MAX_IDLE_S:g} "
                "(30 days); leave it out for a session that never expires.",
                field="idle_timeout",
            )
        if len(self.tissue) > MAX_REGIONS:
            raise UsageError(
                f"The tissue outline has {len(self.tissue)} rectangles and at most {MAX_REGIONS} "
                "are taken; join them.",
                field="tissue",
            )
        for region in self.tissue:
            check_region(region, "A rectangle of the tissue outline", "tissue")

    def to_json(self) -> str:
        """Return the settings as JSON text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> SessionSettings:
        """Read what `to_json` wrote.

        Raises:
            StoreError: The text is not that.
        """
        try:
            raw = json.loads(text)
            unknown = set(raw) - {field.name for field in dataclasses.fields(SessionSettings)}
            if unknown:
                raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
            return msgspec.convert(raw, SessionSettings)
        except (ValueError, TypeError, RecursionError, msgspec.ValidationError) as error:
            raise StoreError(
                f"The stored settings of a session cannot be read ({error})."
            ) from error
