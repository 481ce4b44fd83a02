"""Run the original extractor in torch, beside the runners of `edge-mil tune --peers`."""

from __future__ import annotations

from collections.abc import Callable

from edge_mil.bundle import Bundle
from edge_mil.types import UInt8Array
from edge_mil_export.bench.extractor import original_extractor
from edge_mil_export.extractors import TorchExtractor


def torch_eager(bundle: Bundle, threads: int | None) -> Callable[[UInt8Array], object] | None:
    """Return the extractor in torch, float32, eager mode; None where its name is no timm model.

    Its weights do not change the speed, so the model is built by its name alone.

    Args:
        bundle: With an extractor.
        threads: Threads of torch; None leaves them as they are.
    """
    import torch

    original = original_extractor(bundle)
    if not isinstance(original, TorchExtractor):
        return None
    if threads is not None:
        torch.set_num_threads(threads)
    return original.features
