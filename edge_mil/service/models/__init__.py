"""Serve bundles: load, prepare and describe them.

`registry` holds every bundle that the service was started with; `preparation` builds or verifies
its runner in the background; `servicer` answers the calls about models.
"""
