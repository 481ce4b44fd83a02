"""Score a whole slide file offline: the reference that a live pass must equal.

`cells` reads every tissue cell of a slide, `colour_correction` applies what a calibration says of
its colours, `score` extracts and pools them.
"""
