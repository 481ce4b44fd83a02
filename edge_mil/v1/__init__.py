"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "7d52f38519fc992681fc92e3e2cf6aa26495547e41edeee60e93c9ba42282857"
"""Of the .proto that this was generated from; a test compares it."""
