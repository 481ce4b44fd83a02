"""The wire as Python: generated from proto/ by `make proto`, never edited."""

SOURCE_SHA256 = "51d76f0982590a754b6d61af33ccb676f11277b8f39948112009b8a92182721e"
"""Of the .proto that this was generated from; a test compares it."""
