"""A camera that GStreamer opens: `camera` runs `capture` in a process of the system's Python."""

from edge_mil.cameras.gstreamer.camera import PREFIX, GStreamerCamera

__all__ = ["PREFIX", "GStreamerCamera"]
