"""Small bundles for tests of the folder and its manifest; their graphs compute nothing."""

from __future__ import annotations

from pathlib import Path

from edge_mil.bundle import (
    AggregatorSpec,
    Bundle,
    ExtractorSpec,
    InputSpec,
    Licences,
    Manifest,
    TaskSpec,
    TissueSpec,
    write_bundle,
)

EXTRACTOR_FILES = ("extractor.onnx", "extractor.int8.cpu.onnx")


def manifest(*, redistributable: bool = True, extractor: bool = True) -> Manifest:
    """Return the manifest of a two-class attention head, with an extractor or without."""
    input_spec = InputSpec(
        instances="grid",
        tile_height_px=224,
        tile_width_px=224,
        mpp=0.5,
        color_order="RGB",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        tissue=TissueSpec(),
    )
    graphs = dict(zip(("fp32", "int8-cpu"), EXTRACTOR_FILES, strict=True))
    return Manifest(
        name="sample",
        version="3",
        task=TaskSpec("classification", ("normal", "tumour"), "softmax"),
        input=input_spec if extractor else None,
        extractor=ExtractorSpec("timm:resnet18", 8, graphs) if extractor else None,
        aggregator=AggregatorSpec(
            architecture="abmil",
            incremental="mergeable",
            pooling="attention",
            feature_dim=8,
            value_dim=4,
            channels=1,
            options={"activation": "relu"},
            order="any",
            graphs={"attend": "attend.onnx", "classify": "classify.onnx"},
        ),
        licences=Licences("CC-BY-NC-ND-4.0" if extractor else "", "Apache-2.0"),
        redistributable=redistributable,
        created_by="edge_mil tests",
    )


def sample_bundle(folder: Path, *, redistributable: bool = True, extractor: bool = True) -> Bundle:
    """Write a bundle whose graphs are a few bytes each, and open it."""
    files = {"attend.onnx": b"attend", "classify.onnx": b"classify", "model_card.md": b"# card\n"}
    if extractor:
        files.update({name: name.encode() * 9 for name in EXTRACTOR_FILES})
    made = manifest(redistributable=redistributable, extractor=extractor)
    return write_bundle(made, files, folder)
