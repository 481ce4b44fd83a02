"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "3350fda62ef80d1d952d5f3fe537b256a2652f958b2d32dda6b9becd5673228c"
"""Of the .proto that this was generated from; a test compares it."""
