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

DTFD = "Zhang et al. 2022, arXiv:2203.12081"
RRT = "Tang et al. 2024, arXiv:2402.17228"
TRANSMIL = "Shao et al. 2021, arXiv:2106.00908"
TRANSFORMER = "Vaswani et al. 2017, arXiv:1706.03762"
WIKG = "Li et al. 2024, arXiv:2403.07719"
MILLAB = "MIL-Lab's layout"
TORCHMIL = "torchmil's layout"
STAMP = "El Nahhas et al. 2024, arXiv:2312.10944"

CATALOGUE = (
    HeadEntry("abmil_acmil", f"{ABMIL} (layout of ACMIL and AEM)", "mergeable"),
    HeadEntry("abmil_amlab", ABMIL, "mergeable"),
    HeadEntry("abmil_gated_amlab", ABMIL, "mergeable"),
    HeadEntry("abmil_mambamil", f"{ABMIL} (layout of MambaMIL)", "mergeable"),
    HeadEntry("abmil_mhim_repo", f"{ABMIL} (layout of MHIM-MIL)", "mergeable"),
    HeadEntry("abmil_millab", f"{ABMIL}; {CLAM} ({MILLAB})", "mergeable"),
    HeadEntry("abmil_torchmil", f"{ABMIL}; {CLAM} ({TORCHMIL})", "mergeable"),
    HeadEntry("acmil_ga", ACMIL, "mergeable"),
    HeadEntry("acmil_mha", ACMIL, "mergeable"),
    HeadEntry("addmil", "Javed et al. 2022, arXiv:2206.01794 (MIL_BASELINE)", "mergeable"),
    HeadEntry("aem_mha", AEM, "mergeable"),
    HeadEntry("amil_fc_surv", "Chen et al. 2021, doi:10.1109/ICCV48922.2021.00398", "mergeable"),
    HeadEntry("attrimil", "Cai et al. 2024, arXiv:2404.00351", "mergeable"),
    HeadEntry("chief", "Wang et al. 2024, doi:10.1038/s41586-024-07894-z", "mergeable"),
    HeadEntry("clam_mb", CLAM, "mergeable"),
    HeadEntry("clam_sb", CLAM, "mergeable"),
    HeadEntry("cluster_share", "shares of clusters, as in arXiv:1511.06335", "mergeable"),
    HeadEntry("cobra", "Lenz et al. 2025, arXiv:2411.13623 (a slide encoder)", "whole-bag"),
    HeadEntry("deep_sets", "Zaheer et al. 2017, arXiv:1703.06114 (a sum)", "mergeable"),
    HeadEntry("dftd_millab", f"{DTFD} ({MILLAB})", "mergeable"),
    HeadEntry("dsmil", DSMIL, "banked"),
    HeadEntry("dsmil_millab", f"{DSMIL} ({MILLAB})", "banked"),
    HeadEntry("dsmil_torchmil", f"{DSMIL} ({TORCHMIL})", "banked"),
    HeadEntry("dtfd", DTFD, "mergeable"),
    HeadEntry("dtfd_torchmil", f"{DTFD} ({TORCHMIL})", "mergeable"),
    HeadEntry(
        "feather_millab", "Shao et al. 2025, arXiv:2506.09022 (a slide encoder)", "mergeable"
    ),
    HeadEntry("gabmil_baseline", f"{ABMIL} (layout of MIL_BASELINE)", "mergeable"),
    HeadEntry("gabmil_mambamil", f"{ABMIL} (layout of MambaMIL)", "mergeable"),
    HeadEntry("gigapath", "Xu et al. 2024, doi:10.1038/s41586-024-07441-w", "whole-bag"),
    HeadEntry("hopfield", "Ramsauer et al. 2021, arXiv:2008.02217", "mergeable"),
    HeadEntry("ilra", "Xiang and Zhang 2023, ICLR", "whole-bag"),
    HeadEntry("ins", "Qu et al. 2024, arXiv:2307.02249", "mergeable"),
    HeadEntry("madeleine", "Jaume et al. 2024, arXiv:2408.02859 (a slide encoder)", "mergeable"),
    HeadEntry("mambamil", "Yang et al. 2024, arXiv:2403.06800", "whole-bag"),
    HeadEntry("max_margin", "Savcisens and Eliassi-Rad 2025, arXiv:2506.23921", "mergeable"),
    HeadEntry("max_mil", "largest logit of an instance, for each class", "mergeable"),
    HeadEntry("mean_mil", "mean of the instances' logits", "mergeable"),
    HeadEntry("mean_probability", "mean of the instances' probabilities", "mergeable"),
    HeadEntry("mhim_abmil", MHIM, "mergeable"),
    HeadEntry("mhim_dsmil", MHIM, "banked"),
    HeadEntry("mhim_transmil", MHIM, "whole-bag"),
    HeadEntry("mil_fc", f"{CLAM} (their max pooling, two classes)", "mergeable"),
    HeadEntry("mil_fc_mc", f"{CLAM} (their max pooling, more classes)", "mergeable"),
    HeadEntry("otsurv", "Ren et al. 2025, arXiv:2506.20741", "whole-bag"),
    HeadEntry("porpoise_amil", "Chen et al. 2022, doi:10.1016/j.ccell.2022.07.004", "mergeable"),
    HeadEntry("rrt_millab", f"{RRT} ({MILLAB}, which has no regions)", "whole-bag"),
    HeadEntry("rrtmil", RRT, "whole-bag"),
    HeadEntry(
        "sc_mil_contrastive",
        'Juyal et al. 2023, arXiv:2303.13405 ("Supervised Contrastive")',
        "mergeable",
    ),
    HeadEntry("sc_mil_sparse", 'Qiu et al. 2023, arXiv:2311.00048 ("Sparsely Coded")', "mergeable"),
    HeadEntry("selfvit_dsmil", "Gul et al. 2022, arXiv:2210.09021", "banked"),
    HeadEntry("stamp_mlp", f"{STAMP} (of the mean feature)", "mergeable"),
    HeadEntry("stamp_vit", STAMP, "whole-bag"),
    HeadEntry("stamp_vit_alibi", f"{STAMP} (needs coordinates)", "whole-bag"),
    HeadEntry("transformer_abmil_torchmil", f"{TRANSFORMER} ({TORCHMIL})", "whole-bag"),
    HeadEntry("transformer_millab", f"{TRANSFORMER} ({MILLAB})", "whole-bag"),
    HeadEntry("transmil", TRANSMIL, "whole-bag"),
    HeadEntry("transmil_millab", f"{TRANSMIL} ({MILLAB})", "whole-bag"),
    HeadEntry("transmil_torchmil", f"{TRANSMIL} ({TORCHMIL})", "whole-bag"),
    HeadEntry("weakstil", "Schirris et al. 2022, arXiv:2109.05892 (a percentage)", "mergeable"),
    HeadEntry("wikg", WIKG, "whole-bag"),
    HeadEntry("wikg_millab", f"{WIKG} ({MILLAB})", "whole-bag"),
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
