"""TensorRT and TensorRT-RTX: engines built, kept and run on this device."""
