"""Turn an FP32 graph into INT8 (explicit Q/DQ) or FP16.

`calibrator` measures the ranges of a graph's tensors over calibration tiles; `rounding` rounds one
layer; `qdq` writes the INT8 graph in one of two dialects; `search` takes the first recipe whose
slide scores hold, and `sensitivity` measures which layers hurt when none does; `fp16` writes the
FP16 graph. Why not a library: `docs/decisions/0011-own-fp16-pass.md` and
`docs/decisions/0012-own-qdq-pass.md`.
"""
