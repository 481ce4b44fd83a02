"""One real service for the tests of this folder."""

from wire_fixtures import bundle, channel, service

__all__ = ["bundle", "channel", "service"]
