"""Score features that another program saved.

A features file and a model go in, scores come out. `reader` reads NumPy, HDF5 and PyTorch files
(the last through `torch_file`, without PyTorch and without running anything in the file); `replay`
folds them as a live session does.
"""
