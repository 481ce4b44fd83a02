"""The version of edge_mil: the one place that states it."""

__version__ = "0.2.0"
