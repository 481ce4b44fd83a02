"""COBRA: a Mamba2 encoder of the bag, then attention over the raw features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from edge_mil.errors import UsageError
from edge_mil_export.architectures.clam import clam_attention
from edge_mil_export.architectures.head import GatedAttention, WholeBagHead
from edge_mil_export.architectures.layers import (
    FRESH_HIDDEN,
    FRESH_WIDTH,
    Arrays,
    arrays_of,
    fresh_parts,
)
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

LARGEST = "largest"
RMS_EPS = 1e-5
FRESH_HEADS, FRESH_STATES, FRESH_TAPS = 4, 8, 4


def _has_several_widths(state: Mapping[str, torch.Tensor]) -> bool:
    return sum(key.startswith("embed.") and key.endswith(".head.0.weight") for key in state) > 1


class Mamba2(nn.Module):
    """A causal scan over the rows with one decay for each head.

    Source:
        Dao and Gu 2024, arXiv:2405.21060; state-spaces/mamba, mamba_ssm/modules/mamba2.py.
    """

    def __init__(self, reader: StateDictReader, at: str, width: int) -> None:
        super().__init__()
        self.rates_log = nn.Parameter(reader.tensor(f"{at}.A_log", None).clone())
        self.heads = len(self.rates_log)
        self.skip = nn.Parameter(reader.tensor(f"{at}.D", self.heads).clone())
        self.dt_bias = nn.Parameter(reader.tensor(f"{at}.dt_bias", self.heads).clone())
        self.in_proj = reader.linear(f"{at}.in_proj", width, bias=None)
        self.scale = nn.Parameter(reader.tensor(f"{at}.norm.weight", None).clone())
        self.inner = len(self.scale)
        mixed = self.in_proj.out_features - self.inner - self.heads
        self.states = (mixed - self.inner) // 2
        if mixed != self.inner + 2 * self.states or self.inner % self.heads or self.states < 1:
            raise ArchitectureError(
                f"{at}.in_proj gives {self.in_proj.out_features} numbers, which a scan of width "
                f"{self.inner} with {self.heads} heads does not"
            )
        self.kernel = nn.Parameter(reader.tensor(f"{at}.conv1d.weight", mixed, 1, None).clone())
        self.bias = nn.Parameter(reader.tensor(f"{at}.conv1d.bias", mixed).clone())
        self.out_proj = reader.linear(f"{at}.out_proj", self.inner, width, bias=None)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Return rows (n, l) of rows (n, l)."""
        projected: torch.Tensor = self.in_proj(u)
        gates, mixed = projected[:, : self.inner], projected[:, self.inner : -self.heads]
        padded = functional.pad(mixed.T[None], (self.kernel.shape[2] - 1, 0))
        convolved = functional.conv1d(padded, self.kernel, self.bias, groups=len(self.kernel))
        active = functional.silu(convolved[0].T)
        x = active[:, : self.inner].reshape(len(u), self.heads, -1)
        b, c = active[:, self.inner : -self.states], active[:, -self.states :]
        pace = functional.softplus(projected[:, -self.heads :] + self.dt_bias)
        kept, written = torch.exp(pace * -torch.exp(self.rates_log)), pace[:, :, None] * x
        state, rows = torch.zeros(*x.shape[1:], self.states), []
        for keep, write, before, read in zip(kept, written, b, c, strict=True):
            state = state * keep[:, None, None] + write[:, :, None] * before
            rows.append(state @ read)
        y = torch.stack(rows) + self.skip[:, None] * x
        gated = y.flatten(1) * functional.silu(gates)
        size = torch.sqrt(gated.square().mean(dim=1, keepdim=True) + RMS_EPS)
        out: torch.Tensor = self.out_proj(gated / size * self.scale)
        return out

    def arrays(self, at: str) -> Arrays:
        return arrays_of(
            {
                f"{at}.A": -torch.exp(self.rates_log.double()).float(),
                f"{at}.D": self.skip,
                f"{at}.dt_bias": self.dt_bias,
                f"{at}.in_proj": self.in_proj,
                f"{at}.rms.weight": self.scale,
                f"{at}.conv1d.weight": self.kernel[:, 0],
                f"{at}.conv1d.bias": self.bias,
                f"{at}.out_proj": self.out_proj,
            }
        )


@architecture(
    "cobra",
    keys=("mamba_enc.layers.0.1.A_log", "embed.*.head.1.weight", "attn.0.attention_c.weight"),
    row=146,
)
class Cobra(WholeBagHead):
    """The slide's feature: gated attention in several heads over an encoded bag.

    The file has an embedding for each feature width that it was trained with; one is taken. The
    encoder's own norm is never used. `proj` and `momentum_enc`'s counterpart are for training.

    Source:
        Lenz et al. 2025, arXiv:2411.13623; KatherLab/COBRA, cobra/model/cobra.py.
    """

    options = (
        Option(
            "feature_width",
            INTEGER,
            "which of the file's embeddings is taken",
            LARGEST,
            matters=_has_several_widths,
        ),
    )
    kind = "pooling"
    order = "grid"
    has_attend = False
    training_only = ("proj.", "mamba_enc.norm.")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.embed = "cobra", nn.Identity()
        widths = reader.indices("embed.")
        wanted = options.get("feature_width", LARGEST)
        width = max(widths) if wanted == LARGEST else int(wanted)
        if width not in widths:
            raise UsageError(
                f"feature_width={width} is none of this file's; name "
                f"{', '.join(str(w) for w in widths)}."
            )
        reader.ignore([f"embed.{other}." for other in widths if other != width])
        at = f"embed.{width}.head"
        first = reader.linear(f"{at}.1", width)
        second = reader.linear(f"{at}.4", first.out_features)
        self.enter = nn.Sequential(reader.layer_norm(f"{at}.0", width), first, nn.SiLU(), second)
        self.fc1 = reader.linear("mamba_enc._fc1.0", second.out_features)
        inner = self.fc1.out_features
        numbers = reader.indices("mamba_enc.layers.")
        names = [f"mamba_enc.layers.{k}" for k in numbers]
        self.norms = nn.ModuleList(reader.layer_norm(f"{name}.0", inner) for name in names)
        self.scans = nn.ModuleList(Mamba2(reader, f"{name}.1", inner) for name in names)
        self.classifier = reader.linear("mamba_enc.classifier", inner)
        last = self.classifier.out_features
        self.norm = reader.layer_norm("norm", last)
        self.heads = len(reader.indices("attn."))
        self.attentions = nn.ModuleList(
            clam_attention(reader, f"attn.{c}", last // self.heads) for c in range(self.heads)
        )
        self.feature_dim = self.value_dim = self.outputs = width
        self.channels = 1

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the pooled features (d,) of a whole bag (n, d) in its order."""
        h = functional.gelu(self.fc1(self.enter(features)))
        for norm, scan in zip(self.norms, self.scans, strict=True):
            h = h + scan(norm(h))
        h = self.norm(self.classifier(h))
        logits = torch.stack(
            [attention(h[:, c :: self.heads]) for c, attention in enumerate(self.attentions)]
        )
        return (torch.softmax(logits.mean(dim=0), dim=0).T @ features)[0]

    def arrays(self) -> Arrays:
        found = arrays_of(
            {
                "embed.norm": self.enter[0],
                "embed.0": self.enter[1],
                "embed.1": self.enter[3],
                "fc1": self.fc1,
                "classifier": self.classifier,
                "norm": self.norm,
            }
        )
        for number, (norm, scan) in enumerate(zip(self.norms, self.scans, strict=True)):
            assert isinstance(scan, Mamba2)
            found |= arrays_of({f"layers.{number}.norm": norm}) | scan.arrays(f"layers.{number}")
        for c, attention in enumerate(self.attentions):
            assert isinstance(attention, GatedAttention)
            parts = {"branch": attention.branch, "gate": attention.gate, "last": attention.last}
            found |= arrays_of({f"attention.{c}.{name}": part for name, part in parts.items()})
        return found

    def describe(self) -> str:
        return f"{len(self.scans)} layers, {self.heads} heads, features of width {self.feature_dim}"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width, inner = FRESH_WIDTH, 2 * FRESH_WIDTH
        mixed, at = inner + 2 * FRESH_STATES, "mamba_enc.layers.0"
        parts: dict[str, nn.Module] = {
            f"embed.{feature_dim}.head.0": nn.LayerNorm(feature_dim),
            f"embed.{feature_dim}.head.1": nn.Linear(feature_dim, width),
            f"embed.{feature_dim}.head.4": nn.Linear(width, width),
            "mamba_enc._fc1.0": nn.Linear(width, width),
            f"{at}.0": nn.LayerNorm(width),
            f"{at}.1.in_proj": nn.Linear(width, inner + mixed + 1, bias=False),
            f"{at}.1.out_proj": nn.Linear(inner, width, bias=False),
            f"{at}.1.conv1d": nn.Conv1d(mixed, mixed, FRESH_TAPS, groups=mixed),
            "mamba_enc.classifier": nn.Linear(width, width),
            "norm": nn.LayerNorm(width),
        }
        for c in range(FRESH_HEADS):
            parts[f"attn.{c}.attention_a.0"] = nn.Linear(width // FRESH_HEADS, FRESH_HIDDEN)
            parts[f"attn.{c}.attention_b.0"] = nn.Linear(width // FRESH_HEADS, FRESH_HIDDEN)
            parts[f"attn.{c}.attention_c"] = nn.Linear(FRESH_HIDDEN, 1)
        state = fresh_parts(parts)
        state |= {f"{at}.1.{name}": torch.zeros(1) for name in ("A_log", "dt_bias")}
        return state | {f"{at}.1.D": torch.ones(1), f"{at}.1.norm.weight": torch.ones(inner)}
