"""Score features that were saved by another program.

`reader` reads NumPy, HDF5 and PyTorch files (the last through `torch_file`, without PyTorch and
without running anything in the file); `replay` folds them as a live session would.
"""
