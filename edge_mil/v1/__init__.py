"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "8d01883cdf6dd8bdee7571c8c49d15b5a62b8aa1ad445dbaa81fa97bc32f7a50"
"""Of the .proto that this was generated from; a test compares it."""
