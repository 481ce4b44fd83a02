"""Read checkpoint files without running anything that is in them.

`loading` reads PyTorch and safetensors files to a state dict; `told` reads what lies beside the
weights; `unwrapping` finds the model inside of the wrappers that training code saves around it;
`networks` asks which one is meant where a file holds several.
"""
