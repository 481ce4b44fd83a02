"""Run graphs in TensorRT or TensorRT-RTX: an ONNX graph goes in, a network on the GPU comes out.

An engine (TensorRT's plan for one GPU, one library and one graph) is taken from the cache or built
first. `backend` is the way in; `library` imports whichever TensorRT is installed and `device` asks
which GPU this is; `engines` keeps engines on the disk, `building` builds them; `executor` runs one
through `drivers`.
"""
