"""Open `checkpoint:FILE` and `preset:NAME`: read the file, settle its facts, build the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from edge_mil_export.checkpoints.loading import load_checkpoint
from edge_mil_export.errors import ExtractorError, first_line
from edge_mil_export.extractors.published.config_files import read_config, weights_of
from edge_mil_export.extractors.published.layouts import (
    FoundNetwork,
    find_network,
    first_names,
    without_training_parts,
)
from edge_mil_export.extractors.published.networks.densenet import DenseNet
from edge_mil_export.extractors.published.networks.resnet import ResNet, describe_resnet
from edge_mil_export.extractors.published.networks.swin import build_swin, read_swin
from edge_mil_export.extractors.published.questions import Facts, check_pooling
from edge_mil_export.extractors.published.request import BuiltNetwork, PublishedFile
from edge_mil_export.extractors.published.vit_building import build_vit
from edge_mil_export.extractors.published.vit_layouts import NAMES, read_vit
from edge_mil_export.extractors.torch_module import TorchExtractor
from edge_mil_export.extractors.weights_licence import licence_beside

Made = TypeVar("Made")

MOCO_V3 = ("base", "momentum")
"""Networks of MoCo v3's files, whose ViT-S has twelve heads (Xiyue-Wang/TransPath, vits.py)."""
AVERAGES = ("average", "token_mean", "patch_mean")
"""One and the same where every position of the last map is a token."""


def open_published(
    request: PublishedFile, *, shape: tuple[int, int] | None = None
) -> TorchExtractor:
    """Read the file, ask for what nobody knows, and return the extractor.

    Args:
        request: What the command says.
        shape: Width and depth of the transformer that the command names; None takes any.

    Raises:
        ExtractorError: The file is in no layout that is known, or is not whole.
        CheckpointError: It cannot be read.
        UsageError: A fact is missing; the sentence lists all of them with their choices.
    """
    path, preset = weights_of(request.path), request.preset
    facts = Facts(request.options, request.normalise)
    if preset is not None:
        facts.sources[f"preset {preset.name}: {preset.source}"] = preset.facts()
    facts.sources |= dict(request.known or {})
    facts.sources |= read_config(path)
    weights = request.options.weights or (preset.weights if preset is not None else "") or None
    checkpoint = load_checkpoint(path, weights=weights)
    if checkpoint.weights:
        source = "option" if request.options.weights else f"preset {preset.name if preset else ''}"
        facts.used["weights"] = f"{checkpoint.weights} ({source})"
    if checkpoint.weights in MOCO_V3:
        # The heads of timm's ViT-S are six.
        for source in request.known or {}:
            facts.sources[source] = {
                name: value for name, value in facts.sources[source].items() if name != "num_heads"
            }
    found = find_network(checkpoint.state, file=path.name)
    kind = "vit" if found.layout in NAMES else found.layout
    if preset is not None and kind != preset.kind:
        raise ExtractorError(
            f"{path.name} is a {kind}, and {preset.family} is a {preset.kind}; name another preset."
        )
    try:
        built = _build(found, facts, request, path.name, shape)
    except KeyError as error:
        raise ExtractorError(f"{path.name} is not whole: it lacks {error.args[0]}.") from error
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise ExtractorError(
            f"The shapes in {path.name} are not those of a {kind} ({first_line(error)}); save the "
            "state_dict() of the model again, and export that."
        ) from error
    left_out = tuple(dict.fromkeys([*checkpoint.left_out, *built.left_out]))
    licence = preset.licence if preset is not None and preset.licence else licence_beside(path)
    return TorchExtractor(
        request.name,
        request.tile_px,
        facts.normalisation(),
        built.module.eval().requires_grad_(False),
        licence=licence,
        facts=(built.words, *(f"{name} {value}" for name, value in facts.used.items())),
        left_out=left_out,
    )


def _build(
    found: FoundNetwork,
    facts: Facts,
    request: PublishedFile,
    file: str,
    named: tuple[int, int] | None,
) -> BuiltNetwork:
    if found.layout in NAMES:
        weights = read_vit(found, file=file)
        if named is not None and (weights.shape.width, weights.shape.depth) != named:
            raise ExtractorError(
                f"{file} is not a file of {request.name}: it is a {weights.shape.describe()}, and "
                f"that is {named[0]} wide with {named[1]} blocks; name the model that the weights "
                "were saved from."
            )
        return build_vit(weights, facts, request, file)
    if named is not None:
        raise ExtractorError(
            f"{file} is not a file of {request.name}, but a {found.layout}; name the model that "
            "the weights were saved from."
        )
    state, dropped = without_training_parts(found.state)
    left_out = (*dropped, *first_names(list(found.beside)))
    pooling = request.options.pooling
    if pooling is not None:
        check_pooling(pooling, AVERAGES, file=file)
    module: nn.Module
    if found.layout == "resnet":
        cut = request.options.cut or (request.preset.cut if request.preset is not None else "")
        words = describe_resnet(state, cut or None)
        facts.ask_all(f"{file}, a {words},")
        module = _whole(lambda: ResNet(state, cut=cut or None), file)
        _refuse_unknown(state, module_keys=("conv1.", "bn1.", "layer"), file=file)
    elif found.layout == "densenet":
        facts.ask_all(f"{file}, a DenseNet,")
        # KimiaNet keeps torchvision's `features` as the first of a Sequential and pools it as it
        # is; torchvision puts a ReLU between.
        last_relu = found.prefix.endswith("features.") or not found.prefix
        module = _whole(lambda: DenseNet(state, last_relu=last_relu), file)
        words = f"DenseNet, pooled {'after a ReLU' if last_relu else 'without the last ReLU'}"
        known = ("conv0.", "norm0.", "norm5.", "denseblock", "transition")
        _refuse_unknown(state, module_keys=known, file=file)
    else:
        shape = _whole(lambda: read_swin(state), file)
        words = shape.describe()
        facts.ask_all(f"{file}, a {words},")
        module = _whole(lambda: build_swin(state, shape, request.tile_px, file), file)
    return BuiltNetwork(module, words, left_out)


def _refuse_unknown(
    state: Mapping[str, torch.Tensor], *, module_keys: tuple[str, ...], file: str
) -> None:
    unknown = [key for key in state if not key.startswith(module_keys)]
    if unknown:
        raise ExtractorError(
            f"{file} has {unknown[0]} beside the network that its keys describe, and a feature may "
            "need it; write a function that builds the model and use python:MODULE:FACTORY."
        )


def _whole(make: Callable[[], Made], file: str) -> Made:
    """Return what `make` returns; where a weight is missing, name the file."""
    try:
        return make()
    except ExtractorError as error:
        if not str(error).startswith("it "):
            raise
        raise ExtractorError(
            f"{file} is not whole, or is another network than its keys say: {error}."
        ) from error
