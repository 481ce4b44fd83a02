"""Recipes for engines of the demo bundle's extractor."""

from __future__ import annotations

from pathlib import Path

from edge_mil.backends.tensorrt.engines.recipe import Recipe

DEMO = Path(__file__).parents[2] / "edge_mil" / "demo" / "bundle"


def demo(file: str, precision: str) -> Recipe:
    """Return a recipe for a graph of the demo bundle."""
    return Recipe((DEMO / file).read_bytes(), f"{file} of demo", precision)
