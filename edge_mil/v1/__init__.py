"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "c1ec81a9a5d21d4bff3948fbd51968eb0320807d8448918dfae83628d766fe48"
"""Of the .proto that this was generated from; a test compares it."""
