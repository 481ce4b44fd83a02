"""The demo: a painted slide, a model trained on painted slides, a real service, a live view."""
