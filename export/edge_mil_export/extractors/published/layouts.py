"""Find the extractor inside of a state dict, by the names of its first weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mil_export.errors import ExtractorError

if TYPE_CHECKING:
    import torch

ANCHORS: tuple[tuple[str, str, str], ...] = (
    ("clip-hf", "embeddings.patch_embedding.weight", "pre_layrnorm.weight"),
    ("vit-hf", "embeddings.patch_embeddings.projection.weight", "embeddings.cls_token"),
    ("dinov3-hf", "embeddings.patch_embeddings.weight", "embeddings.cls_token"),
    ("swin", "patch_embed.proj.0.weight", "layers.0.blocks.0.attn.relative_position_bias_table"),
    ("swin", "patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"),
    ("vit", "patch_embed.proj.weight", "blocks.0."),
    ("clip", "conv1.weight", "class_embedding"),
    ("resnet", "conv1.weight", "layer1.0.conv1.weight"),
    ("densenet", "conv0.weight", "denseblock1.denselayer1."),
)
"""Layout, the weight that makes patches or the first map, and another key (or its beginning)."""
TRAINING_ONLY = frozenset({
    "head", "heads", "head_dist", "fc", "fc_4", "classifier", "dino_head", "ibot_head", "dino_loss",
    "ibot_patch_loss", "koleo_loss", "projector", "projectors", "predictor", "projection_head",
    "prototypes", "queue", "queue_ptr", "bn", "instDis", "groupDis", "mask_token", "pooler",
    "decoder", "decoder_blocks", "decoder_embed", "decoder_norm", "decoder_pos_embed",
    "decoder_pred", "logit_scale", "logit_bias", "text", "text_model", "text_projection",
    "text_decoder", "transformer", "token_embedding", "positional_embedding", "ln_final",
    "local_cls_norm", "rope_embed",
})  # fmt: skip
"""First names of parts that no feature needs: heads of classification and self-supervision, their
losses and queues, decoders, the text tower of CLIP and CoCa."""
TRAINING_ONLY_KEYS = ("embeddings.mask_token", "embeddings.position_ids")


@dataclass(frozen=True, slots=True, eq=False)
class FoundNetwork:
    """The extractor of a file.

    Attributes:
        layout: One of ANCHORS.
        prefix: What preceded its keys.
        state: Its weights, without the prefix.
        beside: Weights of the same file outside of it, by their whole keys.
    """

    layout: str
    prefix: str
    state: dict[str, torch.Tensor]
    beside: dict[str, torch.Tensor]


def find_network(state: dict[str, torch.Tensor], *, file: str) -> FoundNetwork:
    """Return the extractor that a state dict holds.

    Args:
        state: Of one network, from `load_checkpoint`.
        file: Name of the file, for messages.

    Raises:
        ExtractorError: None of the known layouts is there, or one is there several times.
    """
    for layout, anchor, other in ANCHORS:
        prefixes = sorted(
            key[: -len(anchor)]
            for key in state
            if key.endswith(anchor) and key[: -len(anchor)][-1:] in ("", ".")
        )
        fitting = [
            prefix for prefix in prefixes if any(key.startswith(prefix + other) for key in state)
        ]
        if len(fitting) > 1:
            raise ExtractorError(
                f"{file} holds {len(fitting)} networks, under {', '.join(fitting)}; save the "
                "state_dict() of the one that is meant, and export that."
            )
        if fitting:
            prefix = fitting[0]
            inside = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            beside = {k: v for k, v in state.items() if not k.startswith(prefix)}
            return FoundNetwork(layout, prefix, inside, beside)
    shown = ", ".join(list(state)[:3])
    raise ExtractorError(
        f"{file} is no extractor that is read from its keys (they begin with {shown}); known are "
        "vision transformers of timm, DINO, DINOv2, DINOv3, CLIP and Hugging Face, Swin, ResNet "
        "and DenseNet; write a function that builds yours and use python:MODULE:FACTORY."
    )


def without_training_parts(
    state: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the weights without the parts that only training needs, and the names of those."""
    dropped = [
        key
        for key in state
        if key.split(".", 1)[0] in TRAINING_ONLY
        or key in TRAINING_ONLY_KEYS
        or key.endswith("num_batches_tracked")
    ]
    kept = {key: value for key, value in state.items() if key not in set(dropped)}
    return kept, first_names([key for key in dropped if not key.endswith("num_batches_tracked")])


def first_names(keys: list[str]) -> list[str]:
    """Return the parts that keys belong to, each once, in order."""
    names = [key if key in TRAINING_ONLY_KEYS else key.split(".", 1)[0] for key in keys]
    return list(dict.fromkeys(names))
