"""The benchmarks of `edge-mil bench` that need PyTorch.

`aggregators` (with `worker`, one process for each head) and `extractor` are named in
`pyproject.toml`, where `edge-mil` finds them; `peers` adds torch to `edge-mil tune --peers`.
"""
