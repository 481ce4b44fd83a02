"""A histogram as lines of text."""

from __future__ import annotations

from edge_mil.imaging.quality.gate_fit import Histogram

WIDTH = 40
"""Characters of the longest bar."""


def histogram(of: Histogram) -> str:
    """Return one line for each bin, and where the threshold lies."""
    longest = max([*of.counts, 1])
    lines = [f"{of.name} ({sum(of.counts)} fields)"]
    for low, high, count in zip(of.edges[:-1], of.edges[1:], of.counts, strict=True):
        bar = "#" * (max(1, round(WIDTH * count / longest)) if count else 0)
        here = low <= of.threshold < high or (of.threshold == high == of.edges[-1])
        mark = f"  <- threshold {of.threshold:.4g}" if here else ""
        lines.append(f"  {low:10.4g} {bar:{WIDTH}} {count:4d}{mark}")
    return "\n".join(lines)
