"""The heads of this release, with measured figures: the data of `edge-mil heads`.

`measured/audit.json` is written by `edge-mil-export audit all --write`, and
`measured/costs.json` by `edge-mil bench aggregators --write`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

HELD = 10_000
"""Instances held when the cost was measured that the table shows."""
FIELD = 20
"""Instances of the field that was folded."""


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """A head of `edge-mil heads`.

    Attributes:
        name: As bundles name it.
        paper: Authors, year and where to find it.
        incremental: mergeable, banked or whole-bag.
    """

    name: str
    paper: str
    incremental: str


ABMIL = "Ilse et al. 2018, arXiv:1802.04712"
CLAM = "Lu et al. 2021, doi:10.1038/s41551-020-00682-w"
ACMIL = "Zhang et al. 2024, arXiv:2311.07125"
MHIM = "Tang et al. 2023, arXiv:2307.15254"
DSMIL = "Li et al. 2021, arXiv:2011.08939"
AEM = "Zhang et al. 2024, arXiv:2406.15303"

CATALOGUE = (
    HeadEntry("abmil_acmil", f"{ABMIL} (layout of ACMIL and AEM)", "mergeable"),
    HeadEntry("abmil_amlab", ABMIL, "mergeable"),
    HeadEntry("abmil_gated_amlab", ABMIL, "mergeable"),
    HeadEntry("abmil_mambamil", f"{ABMIL} (layout of MambaMIL)", "mergeable"),
    HeadEntry("abmil_mhim_repo", f"{ABMIL} (layout of MHIM-MIL)", "mergeable"),
    HeadEntry("abmil_millab", f"{ABMIL} (layout of MIL-Lab)", "mergeable"),
    HeadEntry("acmil_ga", ACMIL, "mergeable"),
    HeadEntry("acmil_mha", ACMIL, "mergeable"),
    HeadEntry("aem_mha", AEM, "mergeable"),
    HeadEntry("clam_mb", CLAM, "mergeable"),
    HeadEntry("clam_sb", CLAM, "mergeable"),
    HeadEntry("dsmil", DSMIL, "banked"),
    HeadEntry("dtfd", "Zhang et al. 2022, arXiv:2203.12081", "mergeable"),
    HeadEntry("gabmil_mambamil", f"{ABMIL} (layout of MambaMIL)", "mergeable"),
    HeadEntry("hopfield", "Ramsauer et al. 2021, arXiv:2008.02217", "mergeable"),
    HeadEntry("ilra", "Xiang and Zhang 2023, ICLR", "whole-bag"),
    HeadEntry("ins", "Qu et al. 2024, arXiv:2307.02249", "mergeable"),
    HeadEntry("mambamil", "Yang et al. 2024, arXiv:2403.06800", "whole-bag"),
    HeadEntry("max_mil", "largest logit of an instance, for each class", "mergeable"),
    HeadEntry("mean_mil", "mean of the instances' logits", "mergeable"),
    HeadEntry("mhim_abmil", MHIM, "mergeable"),
    HeadEntry("mhim_dsmil", MHIM, "banked"),
    HeadEntry("mhim_transmil", MHIM, "whole-bag"),
    HeadEntry("mil_fc", f"{CLAM} (their max pooling, two classes)", "mergeable"),
    HeadEntry("mil_fc_mc", f"{CLAM} (their max pooling, more classes)", "mergeable"),
    HeadEntry("otsurv", "Ren et al. 2025, arXiv:2506.20741", "whole-bag"),
    HeadEntry("rrtmil", "Tang et al. 2024, arXiv:2402.17228", "whole-bag"),
    HeadEntry("sc_mil", "Qiu et al. 2023, arXiv:2311.00048", "mergeable"),
    HeadEntry("selfvit_dsmil", "Gul et al. 2022, arXiv:2210.09021", "banked"),
    HeadEntry("transmil", "Shao et al. 2021, arXiv:2106.00908", "whole-bag"),
    HeadEntry("weakstil", "Schirris et al. 2022, arXiv:2109.05892 (a percentage)", "mergeable"),
    HeadEntry("wikg", "Li et al. 2024, arXiv:2403.07719", "whole-bag"),
)
"""Every head that `edge-mil-export` imports, by name."""


def audit_results() -> Mapping[str, Mapping[str, Any]]:
    """Return each audited head's entry: its sizes and its tests."""
    return {row["name"]: row for row in _measured("audit.json").get("heads", ())}


def costs() -> Mapping[str, Mapping[str, Any]]:
    """Return each measured head's entry: milliseconds of a field and bytes of an instance."""
    return {row["name"]: row for row in _measured("costs.json").get("heads", ())}


def sources() -> Mapping[str, str]:
    """Return how the figures were measured, by kind."""
    return {
        "audit": str(_measured("audit.json").get("source", "not measured")),
        "costs": str(_measured("costs.json").get("source", "not measured")),
    }


@functools.cache
def _measured(name: str) -> Mapping[str, Any]:
    file = resources.files("edge_mil.aggregators") / "measured" / name
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
