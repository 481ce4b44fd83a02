"""Turn PyTorch checkpoints into bundles, on a workstation with torch.

A head's checkpoint (`checkpoints`) is rebuilt (`architectures`) and cut into graphs
(`onnx_export`); an extractor (`extractors`) is traced, quantised (`quantize`) and compared with the
original on slide scores (`fidelity`, `agreement`); `bundle` writes what a device runs. `commands`
are the subcommands of `edge-mil-export`, `audit` and `bench` measure heads and extractors. `tiles`
reads images and slides, `progress` shows bars, `errors` are the exporter's own.
"""
