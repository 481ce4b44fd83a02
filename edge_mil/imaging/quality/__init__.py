"""The quality gate: whether a frame may be used, with the number behind each verdict.

An RGB field goes in; a `GateResult` with its measures comes out. `gate` runs the gates in order:
`saturation` (on the camera's own pixels), `light` (against the background), `motion` and `focus`,
both from the power spectra of tissue blocks that `spectrum` computes. `gate_settings` holds the
thresholds and `gate_fit` fits them to one microscope. `single_image` judges an image that belongs
to no session.
"""
