"""Read checkpoint files without running anything that is in them.

`reader` reads PyTorch and safetensors files to a state dict; `unwrapping` finds the model inside
of what a trainer saved around it.
"""
