"""OTSurv: survival from prototypes that instances are carried to by optimal transport."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil.errors import UsageError
from edge_mil_export.architectures.head import WholeBagHead
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.options import NUMBER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

ENTROPY_WEIGHT, ROUNDS, SETTLED = 0.1, 1000, 1e-10
"""As in `edge_mil.aggregators.whole_bag.otsurv`."""
FRESH_PROTOTYPES = 16


@architecture("otsurv", keys=("prototype_embeddings.weight",), row=230)
class OtSurv(WholeBagHead):
    """Embeds instances, carries them to prototypes, pools these and reads survival.

    Source:
        Ren et al. 2025, arXiv:2506.20741; Y-Research-SBU/OTSurv, src/mil_models/model_otsurv.py.
    """

    options = (
        Option("rho", NUMBER, "how much of the bag reaches the prototypes", "1"),
        Option("survival", ("nll", "cox"), "what the logits mean"),
    )
    kind = "survival"

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling, self.rho = "otsurv", float(options["rho"])
        self.survival_reading = "cox" if options["survival"] == "cox" else "survival-nll"
        if self.rho > 1:
            raise UsageError(
                f"rho={options['rho']} is more than all of the bag; name a number above 0 and up "
                "to 1 (1 is the authors' test)."
            )
        first = reader.linear("patch_encoder.0", bias=None)
        self.embed, width = nn.Sequential(first, nn.ReLU()), first.out_features
        prototypes = reader.tensor("prototype_embeddings.weight", None, width)
        self.prototypes = nn.Parameter(prototypes.clone())
        self.linear = reader.linear("linear", len(prototypes), 1, bias=None)
        self.classifier = reader.linear("classifier", width, bias=None)
        self.feature_dim, self.value_dim = first.in_features, width
        self.channels, self.outputs = 0, self.classifier.out_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits; gradients pass through one round of the settled transport only."""
        h = self.embed(features)
        rows, prototypes = (x - x.amin(dim=1, keepdim=True) for x in (h, self.prototypes))
        cost = torch.cdist(rows.double(), prototypes.double())
        kernel = torch.exp(nn.functional.pad(cost / cost.max(), (0, 1)) / -ENTROPY_WEIGHT)
        plan = self._plan(kernel).to(h.dtype)
        logits: torch.Tensor = self.classifier(self.linear((plan.T @ h).T).T)[0]
        return logits

    def _plan(self, kernel: torch.Tensor) -> torch.Tensor:
        count, columns = kernel.shape
        shares = torch.full((columns,), self.rho / (columns - 1), dtype=kernel.dtype)
        shares[-1] = 1 - self.rho
        powers = torch.full((columns,), 1 / (1 + ENTROPY_WEIGHT), dtype=kernel.dtype)
        powers[-1] = 1

        def one_round(b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            a = (1 / count) / (kernel @ b)
            return a, (shares / (kernel.T @ a)) ** powers

        b = torch.full((columns,), 1 / columns, dtype=kernel.dtype)
        with torch.no_grad():
            for _ in range(ROUNDS):
                before = b
                b = one_round(b)[1]
                if torch.linalg.norm(b - before) <= SETTLED:
                    break
        a, b = one_round(b)
        return (a[:, None] * kernel * b)[:, :-1] / self.rho

    def arrays(self) -> Arrays:
        layers = {"linear": self.linear, "classifier": self.classifier}
        return arrays_of({"prototypes": self.prototypes, **layers})

    def describe(self) -> str:
        return f"{len(self.prototypes)} prototypes"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "patch_encoder.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "prototype_embeddings": nn.Embedding(FRESH_PROTOTYPES, FRESH_WIDTH),
                "linear": nn.Linear(FRESH_PROTOTYPES, 1),
                "classifier": nn.Linear(FRESH_WIDTH, outputs),
            }
        )
