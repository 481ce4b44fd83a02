"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "8cab61f425edbeb09ac2bba6a15e7b6f7b46bdec33351ae81ed0b73603af2572"
"""Of the .proto that this was generated from; a test compares it."""
