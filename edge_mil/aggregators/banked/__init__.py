"""Heads that keep a small row for each instance, in the growing arrays of `bank`.

`dsmil` folds new instances with fixed queries until a critical instance changes; `dtfd_ranked`
ranks the instances that can still be selected; `hopfield` runs its update steps over all keys. Each
answers a change of the bag with one pass over the rows at most.
"""
