"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "5fd7d91cbdea23d9cb3e25ecd0c3cdda2a3adae9087e0255c3fbf393c32ec267"
"""Of the .proto that this was generated from; a test compares it."""
