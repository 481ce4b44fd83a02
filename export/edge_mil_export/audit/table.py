"""Print the results of an audit: a table, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_mil_export.audit.training import Outcome


@dataclass(frozen=True, slots=True)
class Audited:
    """The results of one head.

    Attributes:
        name: As bundles name it.
        options: The options that it was trained with.
        outcomes: One for each test.
        cpu_s: CPU seconds that it took.
        bags: Training bags, epochs, seeds.
    """

    name: str
    options: Mapping[str, str]
    outcomes: Sequence[Outcome]
    cpu_s: float
    bags: tuple[int, int, int]

    def as_json(self) -> dict[str, Any]:
        train, epochs, seeds = self.bags
        return {
            "name": self.name,
            "options": dict(self.options),
            "train_bags": train,
            "epochs": epochs,
            "seeds": seeds,
            "cpu_s": round(self.cpu_s, 1),
            "tests": [_rounded(outcome) for outcome in self.outcomes],
        }


def markdown(rows: Sequence[Audited]) -> str:
    """Return the table: AUROC on train -> on the poisoned test ± its spread, and the verdict."""
    lines = [
        "| head | 1 single concept | 2 both concepts | 3 false frequency | bags, epochs, seeds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            f"{o.train_auroc:.2f} -> {o.test_auroc:.2f} ± {o.spread:.2f} {o.verdict}"
            for o in row.outcomes
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} | {', '.join(map(str, row.bags))} |")
    return "\n".join(lines)


def _rounded(outcome: Outcome) -> dict[str, Any]:
    return {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in asdict(outcome).items()
    }
