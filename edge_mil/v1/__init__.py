"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "9ef6885d4cb1af2173e716b2d7b094a607e8bf6690b56ca8469adce5fbf6a3d7"
"""Of the .proto that this was generated from; a test compares it."""
