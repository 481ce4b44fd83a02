"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "e2719a02aa7081241d4942fff9e2c02929bc5967c9d0605435a1119d53cd0256"
"""Of the .proto that this was generated from; a test compares it."""
