"""The wire as Python, generated from proto/ by `make proto` and never edited."""
