"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "1773830c95a407487a94295965f3572d28ab1f10ecd890a9ce932284f3117970"
"""Of the .proto that this was generated from; a test compares it."""
