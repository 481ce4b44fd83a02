"""Find images that are unlike those the model was made for (out of distribution, OOD).

Features or pixels of a field go in, a `Measure` with its limit comes out. `reference` compares
features with those of the bundle's calibration tiles; `channel_order` notices that red and blue
are exchanged; `single_image_ood` does both for one image that belongs to no session.
"""
