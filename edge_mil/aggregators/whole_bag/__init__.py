"""Heads that must see the whole bag at once, run again in the background when it has changed.

`base` keeps the bag in its canonical order; one file for each network. `nystrom` is the
approximate attention that two of them share.
"""
