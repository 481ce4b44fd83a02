"""Bounds of the numbers and names of `bundle.json`: what no model of today reaches by far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge_mil.errors import BundleError
from edge_mil.limits import printable

if TYPE_CHECKING:
    from edge_mil.bundle.manifest import InputSpec, Manifest, StainSpec

LARGEST_JSON_BYTES = 4 << 20
"""Of `bundle.json`; those of the exporter have 2 to 10 KB."""
MOST_FILES, LONGEST_FILE_NAME = 1000, 200
LONGEST_TEXT = 10_000
MOST_CLASSES = 10_000
LARGEST_TILE_PX = 8192
"""Side of a tile; a whole camera field as one instance has up to 4096."""
WIDEST, MOST_CHANNELS = 1 << 16, 4096
SMALLEST_MPP, LARGEST_MPP = 0.01, 100.0
"""µm/px; an oil objective of 100x has 0.03, a macro lens 10."""
WHITE = 255.0


def check_bounds(manifest: Manifest) -> None:
    """Check what the types cannot say of the numbers and names of a manifest.

    Raises:
        BundleError: One is out of its bounds; the message names the first.
    """
    for problem in _problems(manifest):
        raise BundleError(f"bundle.json is not in order: {problem}. Export the bundle again.")


def _problems(manifest: Manifest) -> Iterator[str]:
    task, head = manifest.task, manifest.aggregator
    if not manifest.name:
        yield "its name is empty"
    texts = (manifest.intended_use, manifest.created_by, *_shown_texts(manifest))
    if any(len(text) > LONGEST_TEXT for text in texts):
        yield f"a text has more than {LONGEST_TEXT} characters"
    if not task.classes and task.kind != "pooling":
        yield "task.classes is empty, and only a pooling has no classes"
    if len(task.classes) > MOST_CLASSES or len(set(task.classes)) < len(task.classes):
        yield f"task.classes must be different, and at most {MOST_CLASSES}"
    if not all(task.classes):
        yield "one of task.classes is empty"
    widths = {"feature_dim": head.feature_dim, "value_dim": head.value_dim}
    for name, width in widths.items():
        if not 1 <= width <= WIDEST:
            yield f"aggregator.{name} is {width}, and must be 1 to {WIDEST}"
    if not 0 <= head.channels <= MOST_CHANNELS:
        yield f"aggregator.channels is {head.channels}, and must be 0 to {MOST_CHANNELS}"
    if len(manifest.files) > MOST_FILES:
        yield f"it lists {len(manifest.files)} files, and at most {MOST_FILES} are read"
    for file in manifest.files:
        if not _is_file_name(file):
            yield f"{file[:LONGEST_FILE_NAME]!r} is no name of a file inside of the bundle"
    if manifest.input is not None:
        yield from _input_problems(manifest.input)


def _shown_texts(manifest: Manifest) -> tuple[str, ...]:
    """Return the short texts of a manifest that are shown as they are."""
    head, licences = manifest.aggregator, manifest.licences
    return head.architecture, head.pooling, licences.extractor, licences.aggregator


def _input_problems(spec: InputSpec) -> Iterator[str]:
    for name, side in (("height", spec.tile_height_px), ("width", spec.tile_width_px)):
        if not 1 <= side <= LARGEST_TILE_PX:
            yield f"input.tile_{name}_px is {side}, and must be 1 to {LARGEST_TILE_PX}"
    if not SMALLEST_MPP <= spec.mpp <= LARGEST_MPP:
        yield f"input.mpp is {spec.mpp}, and must be {SMALLEST_MPP} to {LARGEST_MPP} µm/px"
    if spec.color_order != "RGB":
        yield "input.color_order must be RGB"
    for name, numbers in (("mean", spec.mean), ("std", spec.std)):
        if numbers is not None and not _finite(numbers, 3):
            yield f"input.{name} must be three finite numbers"
    tissue = spec.tissue
    if not (_finite(tissue.background, 3) and _within(tissue.background, 0, WHITE)):
        yield "input.tissue.background must be three numbers of 0 to 255"
    if not 0 <= tissue.min_difference <= WHITE:
        yield "input.tissue.min_difference must be 0 to 255"
    if not 0 <= tissue.min_share <= 1:
        yield "input.tissue.min_share must be 0 to 1"
    if spec.stain is not None:
        yield from _stain_problems(spec.stain)


def _stain_problems(stain: StainSpec) -> Iterator[str]:
    lengths = {
        "background": (stain.background, (3,)),
        "mean": (stain.mean, (3,)),
        "deviation": (stain.deviation, (3,)),
        "stains": (stain.stains, (0, 6)),
        "reach": (stain.reach, (0, 2)),
    }
    for name, (numbers, allowed) in lengths.items():
        if not any(_finite(numbers, length) for length in allowed):
            wanted = " or ".join(map(str, allowed))
            yield f"input.stain.{name} must be {wanted} finite numbers"


def _finite(numbers: Sequence[float], length: int) -> bool:
    return len(numbers) == length and all(map(math.isfinite, numbers))


def _within(numbers: Sequence[float], least: float, most: float) -> bool:
    return all(least <= number <= most for number in numbers)


def _is_file_name(name: str) -> bool:
    parts = name.split("/")
    return printable(name, LONGEST_FILE_NAME) == name and not (
        "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts)
    )
