"""Print the confusion table of verdicts over the labelled set.

python tests/benchmarks/gates/confusion.py ../shared/data [--half check] [--other | --light]
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

from make_labelled_set import labelled_set
from sources import EXTRA, HALVES

from edge_mil.imaging import GridGeometry
from edge_mil.imaging.quality.single_image import ImageQuality
from edge_mil.types import Verdict

COLUMNS = (
    Verdict.ACCEPTED,
    Verdict.BLURRED,
    Verdict.MOVING,
    Verdict.SATURATED,
    Verdict.BLANK,
    Verdict.WRONG_LIGHT,
    Verdict.NOISY,
)
GOOD, BORDERLINE = ("good",), ("blur_r02", "blur_r03", "brighter", "negatives", "unstained")
"""Kinds that must be accepted; kinds that are neither good nor bad."""

SAID = "said"
"""Start of the kinds of which the table shows what is said, right or wrong."""

RIGHT_NAMES = {
    "blur": (Verdict.BLURRED,),
    "gauss": (Verdict.BLURRED,),
    "moved": (Verdict.MOVING,),
    "doubled": (Verdict.MOVING,),
    "vibrated": (Verdict.MOVING,),
    "clipped": (Verdict.SATURATED,),
    "black": (Verdict.SATURATED,),
    "dark": (Verdict.SATURATED, Verdict.WRONG_LIGHT),
    "blank": (Verdict.BLANK,),
    "even": (Verdict.BLANK, Verdict.SATURATED, Verdict.WRONG_LIGHT),
    "noise": (Verdict.NOISY,),
    "jpeg": (Verdict.NOISY,),
    "negative": (Verdict.WRONG_LIGHT,),
    "fluorescent": (Verdict.WRONG_LIGHT,),
    "one_channel": (Verdict.WRONG_LIGHT,),
}
"""Start of a kind -> verdicts with the right remedy."""


def confusion(
    data: Path,
    *,
    half: str = "all",
    fields: int = 12,
    seed: int = 0,
    other: bool = False,
    light: bool = False,
) -> dict[tuple[str, str], Counter[Verdict]]:
    """Return how often each verdict was given, by kind and source."""
    quality = ImageQuality(GridGeometry(0.5, 224, 224, 0.5))
    table: dict[tuple[str, str], Counter[Verdict]] = defaultdict(Counter)
    for picture in labelled_set(
        data, half=half, fields=fields, seed=seed, other=other, light=light
    ):
        table[picture.kind, picture.source][quality.evaluate(picture.pixels).verdict] += 1
    return table


def is_good(kind: str) -> bool:
    """Say whether pictures of this kind must be accepted."""
    return kind.startswith(GOOD)


def right_names(kind: str) -> tuple[Verdict, ...]:
    """Return the verdicts that send the operator to the right remedy."""
    return next((names for start, names in RIGHT_NAMES.items() if kind.startswith(start)), ())


def summary(table: dict[tuple[str, str], Counter[Verdict]], sources: bool = False) -> list[str]:
    """Return the lines of the table: kinds down, verdicts across."""
    rows: dict[str, Counter[Verdict]] = defaultdict(Counter)
    for (kind, source), counts in table.items():
        extra = source in EXTRA
        name = f"{kind} {source}" if sources else f"{kind}{' (extra)' if extra else ''}"
        rows[name].update(counts)
    lines = [f"{'':30}" + "".join(f"{column.name:>10}" for column in COLUMNS)]
    lines += [
        f"{name:30}" + "".join(f"{rows[name][column]:10d}" for column in COLUMNS)
        for name in sorted(rows)
    ]
    for extra in (False, True):
        good, bad, named = Counter[Verdict](), Counter[Verdict](), 0
        for (kind, source), counts in table.items():
            if (source in EXTRA) != extra or kind in BORDERLINE or kind.startswith(SAID):
                continue
            if not is_good(kind):
                named += sum(counts[verdict] for verdict in right_names(kind))
            (good if is_good(kind) else bad).update(counts)
        refused = good.total() - good[Verdict.ACCEPTED]
        if good and bad:
            lines.append(
                f"{'extra sets' if extra else 'main sets'}: good refused {refused} of "
                f"{good.total()} ({refused / good.total():.1%}), bad accepted "
                f"{bad[Verdict.ACCEPTED]} of {bad.total()} "
                f"({bad[Verdict.ACCEPTED] / bad.total():.1%}), named rightly {named} "
                f"({named / bad.total():.1%})"
            )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--half", choices=HALVES, default="all")
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--other", action="store_true")
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--by-source", action="store_true")
    given = parser.parse_args()
    table = confusion(
        given.data,
        half=given.half,
        fields=given.fields,
        seed=given.seed,
        other=given.other,
        light=given.light,
    )
    print("\n".join(summary(table, given.by_source)))


if __name__ == "__main__":
    main()
