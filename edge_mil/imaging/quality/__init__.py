"""Measure whether a frame may be used, and say the number behind the decision.

`gate` runs the gates in order: `saturation`, `motion`, then `focus` (both from the power spectra of
`spectrum`). `gate_settings` holds the thresholds and `gate_fit` fits them to one microscope.
`single_image` judges an image that belongs to no session.
"""
