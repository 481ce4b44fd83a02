"""Serve calibrations.

`servicer` measures them from frames that a client streams, and lists them.
"""
