"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "8ef61563a331af1dcde9c09b60b46240db5543b802d6186581a68ed180e8ab48"
"""Of the .proto that this was generated from; a test compares it."""
