"""Draw a histogram as lines of text."""

from __future__ import annotations

from edge_mil.imaging.quality.gate_fit import Histogram

WIDTH = 40
"""Characters of the longest bar."""


def histogram_lines(histogram: Histogram) -> list[str]:
    """Return a heading and one line for each bin; the threshold's bin is marked."""
    longest = max([*histogram.counts, 1])
    lines = [f"{histogram.name} ({sum(histogram.counts)} fields)"]
    edges, threshold = histogram.edges, histogram.threshold
    for low, high, count in zip(edges[:-1], edges[1:], histogram.counts, strict=True):
        bar = "#" * (max(1, round(WIDTH * count / longest)) if count else 0)
        inside = low <= threshold < high or (threshold == high == edges[-1])
        mark = f"  <- threshold {threshold:.4g}" if inside else ""
        lines.append(f"  {low:10.4g} {bar:{WIDTH}} {count:4d}{mark}")
    return lines
