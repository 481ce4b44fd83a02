"""`--weights`: which network is meant where a file of the extractor or the head holds several."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from edge_mil.errors import UsageError
from edge_mil_export.checkpoints.networks import WEIGHTS, check_weights
from edge_mil_export.extractors.options import ExtractorOptions

PARTS = ("extractor", "aggregator")
HELP = f"which network, where a file holds several with different weights: {', '.join(WEIGHTS)}"


def add_argument(parser: argparse.ArgumentParser, *, both: bool) -> None:
    """Add `--weights`; `both` where a command reads an extractor and a head."""
    more = "; extractor=NAME or aggregator=NAME where only one is meant" if both else ""
    parser.add_argument(
        "--weights",
        action="append" if both else "store",
        default=[] if both else None,
        metavar="NAME",
        help=HELP + more,
    )


def parse_weights(words: Sequence[str]) -> dict[str, str]:
    """Return the network of each part, from repeated `--weights`.

    Raises:
        UsageError: A part is named twice, or a network that no file holds.
    """
    found: dict[str, str] = {}
    for word in words:
        part, equals, name = word.partition("=")
        parts = (part,) if equals and part in PARTS else PARTS
        for one in parts:
            if one in found:
                raise UsageError(
                    f"--weights names the network of the {one} twice; give extractor=NAME and "
                    "aggregator=NAME, or one NAME for both."
                )
            found[one] = name if equals and part in PARTS else word
            check_weights(found[one])
    return found


def with_head_weights(options: dict[str, str], weights: str | None) -> dict[str, str]:
    """Return the options of a head with its network, which `--arch-option weights=` may name too.

    Raises:
        UsageError: The two disagree.
    """
    _agree("--arch-option", options.get("weights"), weights)
    return options if weights is None else {**options, "weights": weights}


def with_extractor_weights(options: ExtractorOptions, weights: str | None) -> ExtractorOptions:
    """Return the options of an extractor with its network.

    Raises:
        UsageError: `--extractor-option weights=` names another one.
    """
    _agree("--extractor-option", options.weights, weights)
    return options if weights is None else replace(options, weights=weights)


def _agree(option: str, first: str | None, second: str | None) -> None:
    if first is not None and second is not None and first != second:
        raise UsageError(f"{option} weights={first} and --weights {second} disagree; give one.")
