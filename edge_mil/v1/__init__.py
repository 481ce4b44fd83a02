"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "30d0d5150d552fdf5eb71ac18b052c9f27bcf9546f9016f949700f8ec6b92784"
"""Of the .proto that this was generated from; a test compares it."""
