"""Heads that keep a small row for each instance, in the growing array of `bank`.

Each of `dsmil`, `dtfd_ranked` and `hopfield` answers a change of the bag with one pass over the
rows.
"""
