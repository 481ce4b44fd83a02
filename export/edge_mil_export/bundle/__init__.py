"""Put a bundle together: graphs, reference, licences, model card.

`making` runs the steps in order for an extractor and a head, `aggregator_bundle` writes a head
alone. `reference_file` measures the calibration tiles for the checks on the device, `stain_target`
their stain; `licences` and `model_card` say under which terms and from what the bundle is made.
"""
