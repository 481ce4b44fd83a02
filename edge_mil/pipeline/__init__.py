"""One frame to one answer: a pure composition of imaging, network and aggregator."""

from edge_mil.pipeline.model import Model

__all__ = ["Model"]
