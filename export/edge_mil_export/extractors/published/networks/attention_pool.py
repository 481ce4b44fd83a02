"""Pool the tokens of a transformer with a learned query, as CoCa and CONCH do."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

POOLER_EPS = 1e-5
"""Of the pooler's layer norms: torch's default, which open_clip takes over."""


class AttentionPool(nn.Module):
    """One query over all tokens, then a layer norm, then (where asked) a projection.

    Source:
        mahmoodlab/CONCH, conch/open_clip_custom/transformer.py (AttentionalPooler) and
        coca_model.py (`encode_image`), after mlfoundations/open_clip.
    """

    def __init__(self, state: dict[str, torch.Tensor], heads: int, *, projected: bool) -> None:
        """Take the weights over.

        Args:
            state: Keys below the tower: attn_pool_contrast.*, ln_contrast.*, proj_contrast.
            heads: Attention heads; they divide the pooled width.
            projected: Also multiply by proj_contrast and divide by the length, which is the
                authors' feature for image and text matching.
        """
        super().__init__()
        pool = "attn_pool_contrast."
        width = state[f"{pool}query"].shape[1]
        self.heads = heads
        self.query = nn.Parameter(state[f"{pool}query"][:1])
        self.ln_q, self.ln_k = _norm(state, f"{pool}ln_q"), _norm(state, f"{pool}ln_k")
        self.ln_out = _norm(state, "ln_contrast")
        if f"{pool}attn.in_proj_weight" in state:
            weights = state[f"{pool}attn.in_proj_weight"].chunk(3)
        else:
            weights = tuple(state[f"{pool}attn.{part}_proj_weight"] for part in "qkv")
        biases = state[f"{pool}attn.in_proj_bias"].chunk(3)
        self.q, self.k, self.v = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        out = f"{pool}attn.out_proj."
        self.out = _linear(state[f"{out}weight"], state[f"{out}bias"])
        self.projection = nn.Parameter(state["proj_contrast"]) if projected else None
        self.head_width = width // heads

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the pooled features (n, e) of tokens (n, t, d)."""
        count, length = tokens.shape[0], tokens.shape[1]
        context = self.ln_k(tokens)
        shape = (count, length, self.heads, self.head_width)
        query = self.q(self.ln_q(self.query)).reshape(1, 1, self.heads, self.head_width)
        found = functional.scaled_dot_product_attention(
            query.expand(count, -1, -1, -1).transpose(1, 2),
            self.k(context).reshape(shape).transpose(1, 2),
            self.v(context).reshape(shape).transpose(1, 2),
        )
        pooled: torch.Tensor = self.ln_out(self.out(found.transpose(1, 2).flatten(1)))
        if self.projection is None:
            return pooled
        return functional.normalize(pooled @ self.projection, dim=-1)


def _norm(state: dict[str, torch.Tensor], name: str) -> nn.LayerNorm:
    made = nn.LayerNorm(state[f"{name}.weight"].shape[0], eps=POOLER_EPS)
    made.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
    return made


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return made
