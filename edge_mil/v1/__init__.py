"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "76be7b76f2db355d6673a20075c76ab46c0302be2fce1aafde1c11cf0b743c41"
"""Of the .proto that this was generated from; a test compares it."""
