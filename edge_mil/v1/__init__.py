"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "95d2a576d1047586337d4bf80ce20e09f68f5826363d656ffb3bc2f2b6ded74f"
"""Of the .proto that this was generated from; a test compares it."""
