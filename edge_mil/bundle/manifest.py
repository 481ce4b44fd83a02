"""`bundle.json` as values, parsed strictly: a misspelt key is an error, not a default.

The values are msgspec structs: a copy with changes is `msgspec.structs.replace(spec, mpp=0.25)`.
"""

from __future__ import annotations

import json

import msgspec
from msgspec import Struct, field

from edge_mil.bundle.bounds import LARGEST_JSON_BYTES, check_bounds
from edge_mil.errors import BundleError, BundleVersionError, UsageError
from edge_mil.limits import check_text
from edge_mil.types import RESEARCH_USE_ONLY

SCHEMA_VERSION = 1
"""Version that this edge_mil writes; it reads this one and the older ones."""

KINDS = ("classification", "regression", "survival", "pooling")
PROBABILITIES = ("softmax", "sigmoid", "none")
INSTANCES = ("grid", "field")
STAIN_METHODS = ("macenko", "reinhard")
MAX_SENTENCE_BYTES = 4096
"""A line of the intended use."""
INCREMENTAL = ("mergeable", "banked", "whole-bag")


class _Version(Struct):
    """The one key that every version of `bundle.json` has."""

    schema_version: int


class TaskSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The task of the model: what its outputs are.

    Attributes:
        kind: classification, regression, survival or pooling (no classifier).
        classes: Names of the outputs.
        probabilities: How logits become probabilities: softmax, sigmoid or none.
    """

    kind: str
    classes: tuple[str, ...]
    probabilities: str


class TissueSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The tissue test of a cell (`edge_mil.imaging.tissue`).

    Attributes:
        background: Nominal colour of empty glass, RGB 0 to 255.
        min_difference: A pixel is tissue when a channel is at least this many grey levels darker
            than the background.
        min_share: A cell shows tissue when at least this share of its pixels is tissue.
    """

    background: tuple[float, ...] = (240.0, 240.0, 240.0)
    min_difference: float = 25.0
    min_share: float = 0.05


class StainSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Stain normalisation: the colours that tiles are brought to before the extractor.

    These are the target; the stain of the slide at hand comes from a calibration. Numbers as in
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


class InputSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The input of the extractor: how an instance is cut from fields.

    Attributes:
        instances: grid (one cell of the global grid) or field (a whole camera field).
        tile_height_px: Rows of a tile.
        tile_width_px: Columns of a tile.
        mpp: Pixel size that the model was trained at, um/px.
        color_order: Always "RGB"; the export exchanges the channels of a BGR model's first layer.
        mean: Mean that the graph subtracts from pixels of 0 to 1; None where the exported model
            brought its own normalisation.
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


class ExtractorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The extractor: the network from a tile to a feature.

    Attributes:
        name: As it was exported: "timm:resnet18".
        feature_dim: Width of a feature.
        graphs: Precision -> file: fp32, int8-cpu, int8-trt, fp16.
    """

    name: str
    feature_dim: int
    graphs: dict[str, str]


class AggregatorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The aggregator: the network from a bag to a score.

    Attributes:
        architecture: As `edge-mil-export --arch` names it.
        incremental: mergeable, banked or whole-bag.
        pooling: attention, mean or max.
        feature_dim: Width of a feature.
        value_dim: Width of an embedding, which is what is pooled.
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


class Licences(Struct, frozen=True, forbid_unknown_fields=True):
    """Licences of the two networks; `extractor` is "" where there is none."""

    extractor: str
    aggregator: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `bundle.json`.

    Attributes:
        name: Name of the bundle, as clients ask for it.
        version: The author's version of the model.
        task: What the outputs are.
        input: How an instance is cut; None for a bundle without an extractor.
        extractor: The network from a tile to a feature; None where saved features are scored.
        aggregator: The network from a bag to a score.
        licences: Licences of the two networks.
        redistributable: False leaves the extractor out when the bundle is packed.
        files: Name of every other file (but `signature`) -> SHA-256 in hex.
        intended_use: What the model may be used for, a sentence for people.
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
        """Check what the types cannot say, of a manifest that is read and of one that is made."""
        named = [
            ("task.kind", self.task.kind, KINDS),
            ("task.probabilities", self.task.probabilities, PROBABILITIES),
            ("aggregator.incremental", self.aggregator.incremental, INCREMENTAL),
        ]
        if self.input is not None:
            named.append(("input.instances", self.input.instances, INSTANCES))
            if self.input.stain is not None:
                named.append(("input.stain.method", self.input.stain.method, STAIN_METHODS))
        self._check_text()
        for what, value, allowed in named:
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
        check_bounds(self)

    def _check_text(self) -> None:
        """Check what is printed: a name must not move the cursor of a terminal."""
        texts = [("name", self.name), ("version", self.version), ("created_by", self.created_by)]
        texts += [("task.classes", name) for name in self.task.classes]
        try:
            for what, text in texts:
                check_text(text, f"bundle.json's {what}")
            for line in self.intended_use.splitlines():
                check_text(line, "bundle.json's intended_use", max_bytes=MAX_SENTENCE_BYTES)
        except UsageError as error:
            raise BundleError(f"{error} Export the bundle again.") from error

    def to_json(self) -> bytes:
        """Return the bytes of `bundle.json`: sorted keys, two spaces, one line end."""
        text = json.dumps(self, default=msgspec.structs.asdict, indent=2, sort_keys=True)
        return (text + "\n").encode()

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """Parse `bundle.json`.

        Raises:
            BundleVersionError: It was written by a newer edge_mil.
            BundleError: It is no JSON object, or a key is missing, unknown or of another type.
        """
        if len(data) > LARGEST_JSON_BYTES:
            raise BundleError(
                f"bundle.json has {len(data)} bytes and at most {LARGEST_JSON_BYTES} are read; "
                "export the bundle again."
            )
        try:
            version = msgspec.json.decode(data, type=_Version).schema_version
        except msgspec.ValidationError as error:
            raise BundleError(
                "bundle.json names no schema_version, so this is no edge_mil bundle."
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(
                f"bundle.json is not JSON ({error}); export the bundle again."
            ) from error
        if version > SCHEMA_VERSION:
            raise BundleVersionError(
                f"The bundle has schema version {version} and this edge_mil reads up to "
                f"{SCHEMA_VERSION}; update edge_mil on this device (pip install -U edge-mil).",
                bundle=version,
                supported=SCHEMA_VERSION,
            )
        try:
            return msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(
                f"bundle.json is not in order ({error}); export the bundle again with this "
                "edge_mil."
            ) from error
