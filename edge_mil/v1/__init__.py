"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "3f8d6eac0d08edbd0e84c26e297afdb3c287591e8e3eb842e4cd5928cefff378"
"""Of the .proto that this was generated from; a test compares it."""
