"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "9fc316c2db0ce9735fc08ea2815569a6815a2b31b63d0bff9093d52aab5bd6e1"
"""Of the .proto that this was generated from; a test compares it."""
