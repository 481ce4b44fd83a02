"""MambaMIL: a scan in order, and one over the re-ordered or reversed bag."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from edge_mil_export.architectures.head import WholeBagHead, activation, gated
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.options import ACTIVATION, INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

FRESH_LAYERS, STATES, TAPS, HIDDEN = 2, 16, 4, 128
"""Of a fresh head, as published."""


class Branch(nn.Module):
    """One selective scan of a layer; `tail` is "" for the forward one, "_b" for the other."""

    def __init__(self, reader: StateDictReader, at: str, tail: str, channels: int) -> None:
        super().__init__()
        logarithm = "A_log" if not tail else "A_b_log"
        self.rates_log = nn.Parameter(reader.tensor(f"{at}.{logarithm}", channels, None).clone())
        self.skip = nn.Parameter(reader.tensor(f"{at}.D{tail}", channels).clone())
        kernel = reader.tensor(f"{at}.conv1d{tail}.weight", channels, 1, None)
        self.kernel = nn.Parameter(kernel.clone())
        has_bias = f"{at}.conv1d{tail}.bias" in reader
        bias = reader.tensor(f"{at}.conv1d{tail}.bias", channels) if has_bias else None
        self.bias = nn.Parameter(torch.zeros(channels) if bias is None else bias.clone())
        self.x_proj = reader.linear(f"{at}.x_proj{tail}", channels, bias=False)
        ranks = self.x_proj.out_features - 2 * self.rates_log.shape[1]
        self.dt_proj = reader.linear(f"{at}.dt_proj{tail}", ranks, channels)
        self.tail, self.ranks = tail, ranks

    def forward(self, inputs: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """Return gated outputs (steps, channels) of inputs and gates (steps, channels)."""
        taps, states = self.kernel.shape[2], self.rates_log.shape[1]
        padded = functional.pad(inputs.T[None], (taps - 1, 0))
        convolved = functional.conv1d(padded, self.kernel, self.bias, groups=len(self.kernel))
        x = functional.silu(convolved[0].T)
        ranks, writes, reads = self.x_proj(x).split([self.ranks, states, states], dim=1)
        pace = functional.softplus(self.dt_proj(ranks))
        kept = torch.exp(pace[:, :, None] * -torch.exp(self.rates_log))
        written = (pace * x)[:, :, None] * writes[:, None, :]
        state, held = torch.zeros_like(self.rates_log), []
        for keep, write in zip(kept.unbind(), written.unbind(), strict=True):
            state = keep * state + write
            held.append(state)
        y: torch.Tensor = (torch.stack(held) @ reads[:, :, None])[:, :, 0] + self.skip * x
        gated_outputs: torch.Tensor = y * functional.silu(gates)
        return gated_outputs

    def arrays(self, at: str) -> Arrays:
        tail = self.tail
        return arrays_of(
            {
                f"{at}.A{tail}": -torch.exp(self.rates_log.double()).float(),
                f"{at}.D{tail}": self.skip,
                f"{at}.conv1d{tail}.weight": self.kernel[:, 0],
                f"{at}.conv1d{tail}.bias": self.bias,
                f"{at}.x_proj{tail}": self.x_proj,
                f"{at}.dt_proj{tail}": self.dt_proj,
            }
        )


class ScanLayer(nn.Module):
    """h + scans of LN h: one in order, and perhaps one in another order.

    The other is every `rate`-th instance in turn (sr) or the reversed bag (bi); mamba has none.
    """

    def __init__(self, reader: StateDictReader, at: str, width: int, scan: str, rate: int) -> None:
        super().__init__()
        self.norm = reader.layer_norm(f"{at}.0", width)
        self.in_proj = reader.linear(f"{at}.1.in_proj", width, bias=None)
        channels = self.in_proj.out_features // 2
        self.out_proj = reader.linear(f"{at}.1.out_proj", channels, width, bias=None)
        self.forwards = Branch(reader, f"{at}.1", "", channels)
        self.second = None if scan == "mamba" else Branch(reader, f"{at}.1", "_b", channels)
        self.scan, self.rate = scan, rate

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        count = len(h)
        projected = self.in_proj(self.norm(h))
        total = self.forwards(*projected.chunk(2, dim=1))
        if self.second is not None:
            filled, order = projected, torch.arange(count).flip(0)
            if self.scan == "sr":
                filled = functional.pad(projected, (0, 0, 0, -count % self.rate))
                order = torch.arange(len(filled)).reshape(-1, self.rate).T.flatten()
            other = self.second(*filled[order].chunk(2, dim=1))
            total = total + other[torch.argsort(order)][:count]
        out: torch.Tensor = self.out_proj(total)
        return h + out

    def arrays(self, at: str) -> Arrays:
        layers = {"norm": self.norm, "in_proj": self.in_proj, "out_proj": self.out_proj}
        found = arrays_of({f"{at}.{name}": layer for name, layer in layers.items()})
        found |= self.forwards.arrays(at)
        return found if self.second is None else found | self.second.arrays(at)


def _has_second_scan(state: Mapping[str, torch.Tensor]) -> bool:
    return any(key.endswith("A_b_log") for key in state)


@architecture("mambamil", keys=("_fc1.0.weight", "layers.0.1.A_log|layers.0.*.A_log"), row=200)
class MambaMil(WholeBagHead):
    """MambaMIL: SR-Mamba and Bi-Mamba have the same keys and are two models; Mamba has one scan.

    Source:
        Yang, Wang and Chen 2024, arXiv:2403.06800; isyangshu/MambaMIL, models/MambaMIL.py.
    """

    options = (
        ACTIVATION,
        Option(
            "scan",
            ("sr", "bi", "mamba"),
            "the order of the second scan (SR-Mamba or Bi-Mamba; mamba: there is none)",
            matters=_has_second_scan,
        ),
        Option("rate", INTEGER, "the order of the second scan", only_with=("scan", ("sr",))),
        Option("survival", ("none", "nll"), "what the logits mean", "none"),
    )
    order = "grid"

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "mambamil"
        if options["survival"] == "nll":
            self.kind, self.survival_reading = "survival", "survival-nll"
        scan, rate = options.get("scan", "mamba"), int(options.get("rate", 1))
        first = reader.linear("_fc1.0")
        width = first.out_features
        self.embed = nn.Sequential(first, activation(options["activation"]))
        self.layers = nn.ModuleList(
            ScanLayer(reader, f"layers.{i}", width, scan, rate) for i in reader.indices("layers.")
        )
        self.norm = reader.layer_norm("norm", width)
        self.attention = gated(reader, "attention.0", "", "attention.2", width)
        self.classifier = reader.linear("classifier", width)
        self.feature_dim, self.value_dim = first.in_features, width
        self.channels, self.outputs = self.attention.channels, self.classifier.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.embed(features)
        for layer in self.layers:
            h = layer(h)
        h = self.norm(h)
        pooled = torch.softmax(self.attention(h), dim=0).T @ h
        logits: torch.Tensor = self.classifier(pooled)[0]
        return logits

    def arrays(self) -> Arrays:
        found = arrays_of({"norm": self.norm})
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, ScanLayer)
            found |= layer.arrays(f"layers.{number}")
        pooling = {"attention.0": self.attention.branch, "attention.2": self.attention.last}
        return found | arrays_of(pooling | {"classifier": self.classifier})

    def describe(self) -> str:
        return f"{len(self.layers)} layers"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "_fc1.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "norm": nn.LayerNorm(FRESH_WIDTH),
            "attention.0": nn.Linear(FRESH_WIDTH, HIDDEN),
            "attention.2": nn.Linear(HIDDEN, 1),
            "classifier": nn.Linear(FRESH_WIDTH, outputs),
        }
        state = fresh_parts(parts)
        for number in range(FRESH_LAYERS):
            state |= _fresh_layer(f"layers.{number}")
        return state


def _fresh_layer(at: str) -> dict[str, torch.Tensor]:
    channels, ranks = 2 * FRESH_WIDTH, math.ceil(FRESH_WIDTH / 16)
    parts: dict[str, nn.Module] = {
        f"{at}.0": nn.LayerNorm(FRESH_WIDTH),
        f"{at}.1.in_proj": nn.Linear(FRESH_WIDTH, 2 * channels, bias=False),
        f"{at}.1.out_proj": nn.Linear(channels, FRESH_WIDTH, bias=False),
    }
    state: dict[str, torch.Tensor] = {}
    for tail, logarithm in (("", "A_log"), ("_b", "A_b_log")):
        paces = nn.Linear(ranks, channels)
        # softplus(bias) is spread over 0.001 to 0.1, evenly in the logarithm.
        start = torch.exp(torch.rand(channels) * math.log(100) + math.log(1e-3))
        nn.init.uniform_(paces.weight, -(ranks**-0.5), ranks**-0.5)
        with torch.no_grad():
            paces.bias.copy_(start + torch.log(-torch.expm1(-start)))
        parts |= {
            f"{at}.1.conv1d{tail}": nn.Conv1d(channels, channels, TAPS, groups=channels),
            f"{at}.1.x_proj{tail}": nn.Linear(channels, ranks + 2 * STATES, bias=False),
            f"{at}.1.dt_proj{tail}": paces,
        }
        rates = torch.arange(1, STATES + 1, dtype=torch.float32).log()
        state[f"{at}.1.{logarithm}"] = rates.repeat(channels, 1)
        state[f"{at}.1.D{tail}"] = torch.ones(channels)
    return state | fresh_parts(parts)
