"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "2f6b5b1a6be5d9b9de8b52d8e70c1c01d6290ef6d20105c81bc903a121299033"
"""Of the .proto that this was generated from; a test compares it."""
