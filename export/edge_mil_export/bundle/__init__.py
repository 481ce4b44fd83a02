"""Put a bundle together: graphs, reference, licences, model card.

`making` runs the steps in order; `reference` measures the calibration tiles for the checks on the
device, `stain` the stain of the training slides.
"""
