"""The extractors that pathology uses, with random weights, as the exporter writes them.

Weights are random and the BatchNorm statistics too, so the figures show behaviour, not a product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

PX = 224
NETWORKS = (
    "resnet18",
    "resnet50 without layer4",
    "densenet121",
    "vit_small_patch16_224",
    "vit_small_patch14_dinov2",
    "efficientnet_lite0",
)
CALIBRATION_TILES = 4


@cache
def graphs(name: str) -> dict[str, bytes]:
    """Return what the exporter writes: "fp32", "fp16", "int8-trt" and "int8-cpu"."""
    from edge_mil_export.extractors import Normalisation, TorchExtractor
    from edge_mil_export.fidelity.generated import paint_tiles
    from edge_mil_export.onnx_export.extractor_graph import export_extractor
    from edge_mil_export.onnx_export.graph_surgery import resolve_constants
    from edge_mil_export.quantize.calibrator import Calibrator
    from edge_mil_export.quantize.fp16 import to_fp16
    from edge_mil_export.quantize.qdq import DIALECTS, quantize

    normal = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    source = TorchExtractor(name, (PX, PX), normal, _module(name))
    width = source.features(np.zeros((1, PX, PX, 3), np.uint8)).shape[1]
    exported = export_extractor(source, width)
    resolved = resolve_constants(exported.model)
    tiles = paint_tiles(CALIBRATION_TILES, (PX, PX), 0)
    statistics = Calibrator(resolved, tiles).statistics("MinMax")
    made = {"fp32": exported.data, "fp16": to_fp16(exported.model).SerializeToString()}
    for dialect in DIALECTS:
        graph = quantize(resolved, statistics, dialect)
        made[f"int8-{dialect}"] = graph.SerializeToString()
    return made


def _module(name: str) -> Any:
    import torch
    from edge_mil_export.extractors.timm_import import import_timm

    timm, torch_nn = import_timm(), torch.nn
    torch.manual_seed(0)
    makers: dict[str, Callable[[], Any]] = {
        "resnet18": lambda: timm.create_model("resnet18", num_classes=0, zero_init_last=False),
        "resnet50 without layer4": lambda: _truncated(timm),
        "vit_small_patch14_dinov2": lambda: timm.create_model(
            "vit_small_patch14_dinov2", num_classes=0, img_size=PX
        ),
    }
    make = makers.get(name, lambda: timm.create_model(name, num_classes=0))
    module = make().eval()
    for part in module.modules():
        if isinstance(part, torch_nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return module


def _truncated(timm: Any) -> Any:
    """CLAM's ResNet-50: without the last stage, 1024 features."""
    import torch

    whole = timm.create_model("resnet50", num_classes=0, zero_init_last=False)
    whole.layer4 = torch.nn.Identity()
    return whole
