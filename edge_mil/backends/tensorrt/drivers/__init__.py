"""Memory, copies and streams of one GPU, by either Python binding of the CUDA driver.

`driver` has the interface and chooses the binding that is installed; `pycuda` and `cuda_python`
implement it.
"""
