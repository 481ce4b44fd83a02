"""SC-MIL of "Sparsely Coded": attention over sparse codes of the instances."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_mil_export.architectures.acmil import DimReduction
from edge_mil_export.architectures.head import AttentionHead, gated
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

FRESH_ATOMS, CODE_HIDDEN, ATTENTION_HIDDEN = 64, (128, 64), 128
"""Of a fresh head, as published but for the atoms."""


class SparseCode(nn.Module):
    """Codes z of instances x = D z, by rounds of shrinking (ISTA) with a threshold for each one.

    z <- shrink(z - D^T (D z - x) / c, t(x) / c), from shrink(D^T x, t(x) / c); t is a network.
    """

    def __init__(self, reader: StateDictReader, prefix: str, rounds: int) -> None:
        super().__init__()
        atoms = reader.tensor(f"{prefix}.Dict", None, None)
        self.atoms = nn.Parameter(atoms.clone())
        self.scale = nn.Parameter(reader.tensor(f"{prefix}.c").clone())
        self.rounds = rounds
        at, width = f"{prefix}.lam_layer.mlp", len(atoms)
        numbers = reader.indices(f"{at}.")
        hidden, last = numbers[:-1:2], numbers[-1]
        parts: list[nn.Module] = []
        for index in hidden:
            layer = reader.linear(f"{at}.{index}", width)
            width = layer.out_features
            parts += [layer, reader.layer_norm(f"{at}.{index + 1}", width), nn.Softplus()]
        self.threshold = nn.Sequential(*parts, reader.linear(f"{at}.{last}", width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return codes (n, atoms) of instances (n, l)."""
        limit = self.threshold(x) / self.scale
        seen = x @ self.atoms
        z = _shrink(seen, limit)
        for _ in range(self.rounds):
            z = _shrink(z + (seen - (z @ self.atoms.T) @ self.atoms) / self.scale, limit)
        return z


def _shrink(x: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    return torch.sign(x) * functional.relu(x.abs() - limit)


@architecture(
    "sc_mil_sparse",
    keys=("sc.Dict", "sc.lam_layer.mlp.0.weight", "classifier.fc.weight"),
    row=135,
)
class ScMilSparse(AttentionHead):
    """SC-MIL over ABMIL: instances are replaced by their sparse codes, and pooled by attention.

    Another paper's SC-MIL, "Supervised Contrastive", is `sc_mil_contrastive`.

    Source:
        Qiu et al. 2023, arXiv:2311.00048; sotiraslab/SC-MIL, models/sc.py and models/abmil.py.
    """

    options = (Option("rounds", INTEGER, "the code of each instance", "5"),)
    training_only = ("sc.soft_comp", "sc.Identity")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        code = SparseCode(reader, "sc", int(options["rounds"]))
        width, atoms = code.atoms.shape
        parts: list[nn.Module] = [code]
        feature_dim = width
        if "dimReduction.fc1.weight" in reader:
            reduction = DimReduction(reader, "dimReduction")
            if reduction.fc1.out_features != width:
                raise ArchitectureError(
                    f"dimReduction.fc1 gives {reduction.fc1.out_features} numbers and sc.Dict "
                    f"takes {width}"
                )
            parts, feature_dim = [reduction, code], reduction.fc1.in_features
        names = ("attn.attention.0", "", "attn.attention.2")
        if "attn.attention_V.0.weight" in reader:
            names = ("attn.attention_V.0", "attn.attention_U.0", "attn.attention_weights")
        attention = gated(reader, *names, atoms)
        classifier = reader.linear("classifier.fc", attention.channels * atoms)
        self.assemble(nn.Sequential(*parts), attention, classifier, feature_dim=feature_dim)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        at, (first, second) = "sc.lam_layer.mlp", CODE_HIDDEN
        atoms = torch.empty(FRESH_WIDTH, FRESH_ATOMS)
        nn.init.kaiming_uniform_(atoms)
        atoms = functional.normalize(atoms, dim=0)
        parts: dict[str, nn.Module] = {
            "dimReduction.fc1": nn.Linear(feature_dim, FRESH_WIDTH, bias=False),
            f"{at}.0": nn.Linear(FRESH_WIDTH, first),
            f"{at}.1": nn.LayerNorm(first),
            f"{at}.3": nn.Linear(first, second),
            f"{at}.4": nn.LayerNorm(second),
            f"{at}.6": nn.Linear(second, 1),
            "attn.attention_V.0": nn.Linear(FRESH_ATOMS, ATTENTION_HIDDEN),
            "attn.attention_U.0": nn.Linear(FRESH_ATOMS, ATTENTION_HIDDEN),
            "attn.attention_weights": nn.Linear(ATTENTION_HIDDEN, 1),
            "classifier.fc": nn.Linear(FRESH_ATOMS, outputs),
        }
        scale = torch.linalg.matrix_norm(atoms, ord=2) ** 2
        return fresh_parts(parts) | {"sc.Dict": atoms, "sc.c": scale}
