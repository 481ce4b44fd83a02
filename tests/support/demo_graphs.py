"""Graphs of the demo bundle's extractor."""

from __future__ import annotations

from pathlib import Path

from edge_mil.protocols import Graph

DEMO = Path(__file__).parents[2] / "edge_mil" / "demo" / "bundle"


def demo_graph(file: str) -> Graph:
    """Return a graph of the demo bundle, as "extractor.onnx"."""
    return Graph((DEMO / file).read_bytes(), f"{file} of demo")
