"""Heads that must see the whole bag at once, run again in the background when it has changed.

`whole_bag_aggregator` keeps the bag and gives it to a head in its canonical order; each other file
is one head's network, except `nystrom`: the approximate attention of `transmil`. They run in NumPy,
not as one ONNX graph: `docs/decisions/0013-whole-bag-heads-in-numpy.md`.
"""
