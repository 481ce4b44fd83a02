"""Serve calibrations: measure them from frames that a client streams, list and delete them."""
