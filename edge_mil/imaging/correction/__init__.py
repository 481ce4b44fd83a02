"""Correct what the microscope did to the pixels, before anything is measured in them.

`shading` divides by the flat field and balances white, `noise` smooths the noise of the sensor,
`stain` brings the stain to that of the training slides, `stage_axes` turns the frame until its axes
are those of the stage. `background_estimate` estimates uneven light from a single image.
"""
