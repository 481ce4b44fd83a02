"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "5501e093eccc5ce49d2c7fe28b440d587f8b6151e78a8417b284a4bfed92dd31"
"""Of the .proto that this was generated from; a test compares it."""
