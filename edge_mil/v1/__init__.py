"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "631a53ef922dab0bfdc974c230974d3ba4952dc9215f9ee76dcd4b1600f2d9d5"
"""Of the .proto that this was generated from; a test compares it."""
