"""ILRA-MIL: latents that attend the bag, and a bag that attends the latents."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil.errors import UsageError
from edge_mil_export.architectures.head import WholeBagHead
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FRESH_BLOCKS = 2


class Attention(nn.Module):
    """LN(O + relu(W O)) of O = LN(Q + attention of Q over a context), and perhaps a gate.

    Source:
        dazhangyu123/ACMIL, architecture/ilra.py, `MultiHeadAttention`.
    """

    def __init__(self, reader: StateDictReader, prefix: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.fc_q = reader.linear(f"{prefix}.fc_q", bias=None)
        width = self.fc_q.out_features
        self.fc_k = reader.linear(f"{prefix}.fc_k", None, width, bias=None)
        self.fc_v = reader.linear(f"{prefix}.fc_v", None, width, bias=None)
        self.fc_o = reader.linear(f"{prefix}.fc_o", width, width, bias=None)
        inner = f"{prefix}.multihead_attn"
        if f"{inner}.in_proj_weight" not in reader:
            inner = f"{prefix}.multihead_attention"  # in MIL-Lab's copy
        weight = reader.tensor(f"{inner}.in_proj_weight", 3 * width, width)
        has_bias = f"{inner}.in_proj_bias" in reader
        bias = reader.tensor(f"{inner}.in_proj_bias", 3 * width) if has_bias else None
        self.query, self.key, self.value = (
            _linear(weight[at : at + width], None if bias is None else bias[at : at + width])
            for at in (0, width, 2 * width)
        )
        self.out = reader.linear(f"{inner}.out_proj", width, width, bias=None)
        norms = [
            reader.layer_norm(f"{prefix}.{name}", width)
            if f"{prefix}.{name}.weight" in reader
            else nn.Identity()
            for name in ("ln0", "ln1")
        ]
        self.ln0, self.ln1 = norms
        self.gate: nn.Linear | None = None
        if f"{prefix}.gate.0.weight" in reader:
            self.gate = reader.linear(f"{prefix}.gate.0", self.fc_q.in_features, width, bias=None)

    def forward(self, rows: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return rows (q, l) of rows (q, d) that attend a context (n, e)."""
        first = self.fc_q(rows)
        queries, keys, values = (
            part.reshape(part.shape[0], self.heads, -1).permute(1, 0, 2)
            for part in (
                self.query(first),
                self.key(self.fc_k(context)),
                self.value(self.fc_v(context)),
            )
        )
        logits = queries @ keys.transpose(1, 2) * queries.shape[2] ** -0.5
        mixed = torch.softmax(logits, dim=-1) @ values
        out: torch.Tensor = self.ln0(first + self.out(mixed.permute(1, 0, 2).flatten(1)))
        out = self.ln1(out + torch.relu(self.fc_o(out)))
        return out if self.gate is None else out * nn.functional.silu(self.gate(rows))

    def arrays(self, prefix: str) -> Arrays:
        return arrays_of({f"{prefix}.{name}": layer for name, layer in self.named_children()})


@architecture("ilra", keys=("gab_blocks.0.latent",), row=220)
class Ilra(WholeBagHead):
    """ILRA-MIL: latents attend the bag and the bag attends them, in blocks; seeds pool it.

    With several seeds (the class's topk) each gives the classes' logits, one seed after the other,
    as the official class does; no official output of that was at hand.

    Source:
        Xiang and Zhang 2023, ICLR; dazhangyu123/ACMIL, architecture/ilra.py (a copy of
        jinxixiang/low_rank_wsi); mahmoodlab/MIL-Lab, src/models/ilra.py.
    """

    options = (Option("heads", INTEGER, "every attention"),)
    has_attend = False

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, heads = "ilra", int(options["heads"])
        self.embed = nn.Identity()
        self.latents, self.ahead, self.back = nn.ParameterList(), nn.ModuleList(), nn.ModuleList()
        for number in reader.indices("gab_blocks."):
            at = f"gab_blocks.{number}"
            latent = reader.tensor(f"{at}.latent", 1, None, None)
            self.latents.append(nn.Parameter(latent[0].clone()))
            self.ahead.append(Attention(reader, f"{at}.project_forward", heads))
            self.back.append(Attention(reader, f"{at}.project_backward", heads))
        self.mha = Attention(reader, "pooling.mha", heads)
        self.seeds = nn.Parameter(reader.tensor("pooling.S", 1, None, None)[0].clone())
        self.classifier = reader.linear("classifier", self.mha.fc_q.out_features, bias=None)
        width = self.classifier.in_features
        if width % heads:
            raise UsageError(
                f"heads={heads} does not divide the width {width} evenly; name the heads that it "
                "was trained with."
            )
        self.feature_dim = self.value_dim = self.back[0].fc_q.in_features  # type: ignore[union-attr,assignment]
        self.channels, self.outputs = 0, len(self.seeds) * self.classifier.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rows = features
        for latent, ahead, back in zip(self.latents, self.ahead, self.back, strict=True):
            rows = back(rows, ahead(latent, rows))
        logits: torch.Tensor = self.classifier(self.mha(self.seeds, rows))
        return logits.flatten()

    def arrays(self) -> Arrays:
        found = arrays_of({"classifier": self.classifier}) | self.mha.arrays("pooling.mha")
        found |= arrays_of({"pooling.seeds": self.seeds})
        blocks = zip(self.latents, self.ahead, self.back, strict=True)
        for number, (latent, ahead, back) in enumerate(blocks):
            at = f"blocks.{number}"
            found |= arrays_of({f"{at}.latent": latent})
            found |= ahead.arrays(f"{at}.forward") | back.arrays(f"{at}.backward")  # type: ignore[operator]
        return found

    def describe(self) -> str:
        return f"{len(self.latents)} blocks of {len(self.latents[0])} latents"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width = FRESH_WIDTH
        parts: dict[str, nn.Module] = {"classifier": nn.Linear(width, outputs)}
        state = {"pooling.S": nn.init.xavier_uniform_(torch.empty(1, 1, width))}
        for number in range(FRESH_BLOCKS):
            given = width if number else feature_dim
            at = f"gab_blocks.{number}"
            parts |= _parts(f"{at}.project_forward", width, given, gated=True)
            parts |= _parts(f"{at}.project_backward", given, width, gated=True)
            state[f"{at}.latent"] = nn.init.xavier_uniform_(torch.empty(1, 1, width))
        return fresh_parts(parts | _parts("pooling.mha", width, width, gated=False)) | state


def _parts(prefix: str, rows: int, context: int, *, gated: bool) -> dict[str, nn.Module]:
    width = FRESH_WIDTH
    parts: dict[str, nn.Module] = {
        "fc_q": nn.Linear(rows, width),
        "fc_k": nn.Linear(context, width),
        "fc_v": nn.Linear(context, width),
        "fc_o": nn.Linear(width, width),
        "ln0": nn.LayerNorm(width),
        "ln1": nn.LayerNorm(width),
        "multihead_attn": nn.MultiheadAttention(width, 8),
    }
    if gated:
        parts["gate.0"] = nn.Linear(rows, width)
    return {f"{prefix}.{name}": part for name, part in parts.items()}


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
