"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "67e6af49ffef2b8328bef1efd2e77879b0d40e2750b3a2532158ce5c286c2865"
"""Of the .proto that this was generated from; a test compares it."""
