"""What the file of an extractor cannot tell: `--extractor-option K=V`, read and bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from edge_mil.errors import UsageError

ACTIVATIONS = ("gelu", "quick_gelu")
POOLINGS = (
    "cls",
    "patch_mean",
    "token_mean",
    "cls_patch_mean",
    "average",
    "projected",
    "attention",
)
INTERPOLATIONS = ("timm", "dinov2", "dinov2_antialias", "dino", "transformers", "none")
CUTS = ("layer3",)
MAX_HEADS = 256
"""More than any published extractor has (24 in the largest at hand), and a bound."""
MAX_EPS = 0.1
"""A larger term would swallow the variance that a layer norm divides by."""


@dataclass(frozen=True, slots=True)
class ExtractorOptions:
    """Facts of an extractor that its file does not hold; None where the user named none.

    Attributes:
        num_heads: Attention heads of each block.
        norm_eps: What the layer norms add to the variance.
        activation: gelu (exact) or quick_gelu (x * sigmoid(1.702 x)).
        pooling: What becomes of the tokens, or of the last feature map.
        interpolation: How the position embedding is brought to another grid.
        weights: Which network, where the file holds several.
        cut: The last stage of a ResNet that is run; None runs all.
        pooler_heads: Attention heads of an attention pooling.
    """

    num_heads: int | None = None
    norm_eps: float | None = None
    activation: str | None = None
    pooling: str | None = None
    interpolation: str | None = None
    weights: str | None = None
    cut: str | None = None
    pooler_heads: int | None = None

    def completed(self, known: Mapping[str, object]) -> ExtractorOptions:
        """Return the options with `known` where the user named nothing."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in known.items():
            if values[name] is None:
                values[name] = value
        return ExtractorOptions(**values)


NAMES = tuple(field.name for field in fields(ExtractorOptions))


def parse_extractor_options(words: Sequence[str]) -> ExtractorOptions:
    """Return the options of repeated `--extractor-option K=V`.

    Raises:
        UsageError: One is unknown, has a value that there is not, or is given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--extractor-option {word} is not NAME=VALUE.")
        if name not in NAMES:
            raise UsageError(
                f"There is no --extractor-option {name}; the options are {', '.join(NAMES)}."
            )
        if found.setdefault(name, value) != value:
            raise UsageError(
                f"--extractor-option {name} is given twice, as {found[name]} and {value}."
            )
    return ExtractorOptions(
        num_heads=_count("num_heads", found),
        norm_eps=_eps(found),
        activation=_one_of("activation", found, ACTIVATIONS),
        pooling=_one_of("pooling", found, POOLINGS),
        interpolation=_one_of("interpolation", found, INTERPOLATIONS),
        weights=found.get("weights"),
        cut=_one_of("cut", found, CUTS),
        pooler_heads=_count("pooler_heads", found),
    )


def _one_of(name: str, found: Mapping[str, str], choices: Sequence[str]) -> str | None:
    value = found.get(name)
    if value is not None and value not in choices:
        raise UsageError(f"There is no {name}={value}; name {', '.join(choices)}.")
    return value


def _count(name: str, found: Mapping[str, str]) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and 0 < int(value) <= MAX_HEADS):
        raise UsageError(f"--extractor-option {name}={value} is no number from 1 to {MAX_HEADS}.")
    return int(value)


def _eps(found: Mapping[str, str]) -> float | None:
    value = found.get("norm_eps")
    if value is None:
        return None
    try:
        eps = float(value)
    except ValueError:
        eps = math.nan
    if not 0 < eps <= MAX_EPS:
        raise UsageError(
            f"--extractor-option norm_eps={value} is no number above 0 and up to {MAX_EPS:g}; "
            "1e-6 and 1e-5 are common."
        )
    return eps
