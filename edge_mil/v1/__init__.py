"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "8058f1e3324a6f89a861968d14d00b73f29a5eac9595abef15310dc920b0927b"
"""Of the .proto that this was generated from; a test compares it."""
