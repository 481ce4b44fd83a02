"""Serve bundles: load their models, change what runs them, describe them to clients.

`registry` opens and loads every bundle that the service was started with, `description` says what
it is; `preparation` loads and
verifies another runner of a bundle in the background, which then takes over between two fields or
two sessions; `servicer` answers the calls about models.
"""
