"""Corrections of what the microscope does to the pixels, before anything is measured in them.

RGB uint8 images go in, and images of the same kind come out. `shading` divides by the flat field
and balances white, `noise` smooths the sensor's noise, `stage_axes` turns a frame to the stage's
axes, and `stain` brings the colours of tiles to those of the training slides.
`background_estimate` estimates uneven light from a single image, for `edge-mil judge`.
"""
