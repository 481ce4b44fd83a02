"""Talk to the GPU: one file for each Python binding of the CUDA driver.

`driver` is the common interface and chooses the binding that is installed.
"""
