"""`bundle.json` as values, parsed strictly: a misspelt key is an error, not a default."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_mil.errors import BundleError, BundleVersionError
from edge_mil.types import RESEARCH_USE_ONLY

SCHEMA_VERSION = 1
"""Version that this edge_mil writes; it reads this one and the older ones."""

KINDS = ("classification", "regression", "survival", "pooling")
PROBABILITIES = ("softmax", "sigmoid", "none")
INSTANCES = ("grid", "field")
STAIN_METHODS = ("macenko", "reinhard")
INCREMENTAL = ("mergeable", "banked", "whole-bag")


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the score means.

    Attributes:
        kind: classification, regression, survival or pooling (no classifier).
        classes: Names of the outputs.
        probabilities: How logits become probabilities: softmax, sigmoid or none.
    """

    kind: str
    classes: tuple[str, ...]
    probabilities: str


@dataclass(frozen=True, slots=True)
class TissueSpec:
    """The tissue test of a cell: see `edge_mil.imaging.tissue`.

    Attributes:
        background: Nominal colour of empty glass, RGB 0 to 255.
        min_difference: A pixel is tissue when a channel is this much darker than the background.
        min_share: A cell shows tissue when at least this share of its pixels is tissue.
    """

    background: tuple[float, ...] = (240.0, 240.0, 240.0)
    min_difference: float = 25.0
    min_share: float = 0.05


@dataclass(frozen=True, slots=True)
class StainSpec:
    """Stain normalisation: the colours that tiles are brought to before the extractor.

    The source, which is what the slide at hand is like, comes from a calibration. Numbers as in
    `edge_mil.imaging.correction.stain.StainProfile`.

    Attributes:
        method: macenko or reinhard.
        background: Colour of empty glass, RGB 0 to 255.
        mean: Mean of the tissue in CIE L*a*b*.
        deviation: Standard deviation of the same.
        stains: The two stains' optical densities, six numbers; empty under reinhard if unknown.
        reach: 99th percentile of each stain's amount.
    """

    method: str
    background: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    stains: tuple[float, ...] = ()
    reach: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What an instance is made from.

    Attributes:
        instances: grid (one cell of the global grid) or field (a whole camera field).
        tile_height_px: Rows that the extractor takes.
        tile_width_px: Columns that the extractor takes.
        mpp: Pixel size that the model was trained at, um/px.
        color_order: Always "RGB"; a BGR model has its first layer turned at export.
        mean: Mean of the normalisation inside the graph (of 0 to 1); None: the file does it itself.
        std: Standard deviation of the same.
        tissue: Numbers of the tissue test.
        stain: Stain normalisation; None where the model takes tiles as they are.
    """

    instances: str
    tile_height_px: int
    tile_width_px: int
    mpp: float
    color_order: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    tissue: TissueSpec
    stain: StainSpec | None = None


@dataclass(frozen=True, slots=True)
class ExtractorSpec:
    """The network from tile to feature.

    Attributes:
        name: As it was exported: "timm:resnet18".
        feature_dim: Width of a feature.
        graphs: Precision -> file: fp32, int8-cpu, int8-trt, fp16.
    """

    name: str
    feature_dim: int
    graphs: dict[str, str]


@dataclass(frozen=True, slots=True)
class AggregatorSpec:
    """The network from bag to score.

    Attributes:
        architecture: As `edge-mil-export --arch` names it.
        incremental: mergeable, banked or whole-bag.
        pooling: attention, mean or max.
        feature_dim: Width of a feature.
        value_dim: Width of what is pooled.
        channels: Attention channels (heads, branches or classes); 0 without attention.
        options: The options of the head, as `--arch-option` gave them.
        order: Order of the bag: any, or grid.
        graphs: Role -> file: attend, classify.
    """

    architecture: str
    incremental: str
    pooling: str
    feature_dim: int
    value_dim: int
    channels: int
    options: dict[str, str | int | float | bool]
    order: str
    graphs: dict[str, str]


@dataclass(frozen=True, slots=True)
class Licences:
    """Terms of the two parts, kept apart. `extractor` is "" where there is none."""

    extractor: str
    aggregator: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that `bundle.json` says.

    Attributes:
        name: Name of the bundle, as clients ask for it.
        version: The author's version of the model.
        task: What the score means.
        input: What an instance is made from; None for an aggregator-only bundle.
        extractor: The network from tile to feature; None for an aggregator-only bundle.
        aggregator: The network from bag to score.
        licences: Terms of the two parts.
        redistributable: False leaves the extractor out when the bundle is packed.
        files: Name of every other file (but `signature`) -> SHA-256 in hex.
        intended_use: Sentence for people.
        created_by: Program and version that wrote it.
        schema_version: Version of this layout.
    """

    name: str
    version: str
    task: TaskSpec
    input: InputSpec | None
    extractor: ExtractorSpec | None
    aggregator: AggregatorSpec
    licences: Licences
    redistributable: bool
    files: dict[str, str] = field(default_factory=dict)
    intended_use: str = RESEARCH_USE_ONLY
    created_by: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        for what, value, allowed in (
            ("task.kind", self.task.kind, KINDS),
            ("task.probabilities", self.task.probabilities, PROBABILITIES),
            ("aggregator.incremental", self.aggregator.incremental, INCREMENTAL),
            ("input.instances", self.input.instances if self.input else "grid", INSTANCES),
            (
                "input.stain.method",
                self.input.stain.method if self.input and self.input.stain else "macenko",
                STAIN_METHODS,
            ),
        ):
            if value not in allowed:
                raise BundleError(
                    f"bundle.json says {what} is {value!r}, and it must be one of "
                    f"{', '.join(allowed)}; export the bundle again."
                )
        if (self.input is None) != (self.extractor is None):
            raise BundleError(
                "bundle.json describes only one of input and extractor; a bundle has both, or "
                "neither when it scores saved features. Export it again."
            )
        if self.extractor and self.extractor.feature_dim != self.aggregator.feature_dim:
            raise BundleError(
                f"The extractor gives features of width {self.extractor.feature_dim} and the "
                f"aggregator wants {self.aggregator.feature_dim}; export it with the extractor "
                "that the aggregator was trained on.",
                extractor=self.extractor.feature_dim,
                aggregator=self.aggregator.feature_dim,
            )
        if self.input is not None and not (
            self.input.mpp > 0 and self.input.tile_height_px > 0 and self.input.tile_width_px > 0
        ):
            raise BundleError("bundle.json has a tile size or MPP that is not positive.")

    def to_json(self) -> bytes:
        """Return the bytes of `bundle.json`: sorted keys, two spaces, one line end."""
        return (json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """Parse `bundle.json`.

        Raises:
            BundleVersionError: It was written by a newer edge_mil.
            BundleError: It is no JSON object, or a key is missing, unknown or of another type.
        """
        try:
            raw = json.loads(data)
        except ValueError as error:
            raise BundleError(
                f"bundle.json is not JSON ({error}); export the bundle again."
            ) from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise BundleError("bundle.json names no schema_version, so this is no edge_mil bundle.")
        if version > SCHEMA_VERSION:
            raise BundleVersionError(
                f"The bundle has schema version {version} and this edge_mil reads up to "
                f"{SCHEMA_VERSION}; update edge_mil on this device (pip install -U edge-mil).",
                bundle=version,
                supported=SCHEMA_VERSION,
            )
        manifest: Manifest = _parse(Manifest, raw, "")
        return manifest


def _parse(kind: Any, raw: Any, at: str) -> Any:
    """Return `raw` (from JSON) as a value of the annotated type `kind`."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _parse_dataclass(kind, raw, at)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if raw is None and type(None) in arguments:
            return None
        if all(a in (str, int, float, bool) for a in arguments) and type(raw) in arguments:
            return raw
        rest = [a for a in arguments if a is not type(None)]
        if len(rest) == 1:
            return _parse(rest[0], raw, at)
    elif origin is tuple and isinstance(raw, list):
        return tuple(_parse(arguments[0], item, f"{at}[{i}]") for i, item in enumerate(raw))
    elif origin is dict and isinstance(raw, dict):
        return {str(k): _parse(arguments[1], v, f"{at}.{k}") for k, v in raw.items()}
    elif kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    elif kind in (str, int, bool) and type(raw) is kind:
        return raw
    elif kind is type(None) and raw is None:
        return None
    raise BundleError(
        f"bundle.json says {at} is {str(raw)[:40]!r}, which is not of the type it should be; "
        "export the bundle again."
    )


def _parse_dataclass(kind: type, raw: Any, at: str) -> Any:
    if not isinstance(raw, Mapping):
        raise BundleError(f"bundle.json says {at or 'it'} is no object; export the bundle again.")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    prefix = f"{at}." if at else ""
    unknown = sorted(set(raw) - set(fields))
    missing = sorted(
        name
        for name, f in fields.items()
        if name not in raw
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        what = (
            f"has an unknown key {prefix}{unknown[0]}" if unknown else f"lacks {prefix}{missing[0]}"
        )
        raise BundleError(f"bundle.json {what}; export the bundle again with this edge_mil.")
    return kind(**{name: _parse(hints[name], raw[name], prefix + name) for name in raw})
