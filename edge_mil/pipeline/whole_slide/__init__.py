"""Score a whole slide file offline: the reference that a live pass must equal.

A slide file and a model go in, the score and the features of its instances come out. `cells` reads
every tissue cell, or field, of level 0 by the code of a live session; `colour_correction` applies
a calibration's white balance and stain; `score` extracts and pools.
"""
