"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "b522a3d96a6880389e9b16f6f61295c2ebe6ec4e7370c32d51d118836a9383ab"
"""Of the .proto that this was generated from; a test compares it."""
