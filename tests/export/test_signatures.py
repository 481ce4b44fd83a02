"""Signatures: every head is found from its own keys, and by no file that holds more than it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edge_mil_export.architectures.building import build_head  # noqa: E402
from edge_mil_export.architectures.detection import detect  # noqa: E402
from edge_mil_export.architectures.options import common_options  # noqa: E402
from edge_mil_export.architectures.registry import (  # noqa: E402
    Architecture,
    Variant,
    registered,
    variants,
)
from edge_mil_export.errors import ArchitectureError  # noqa: E402

from edge_mil.errors import UsageError  # noqa: E402

VARIANTS = variants()
WIDTH = 24


def names(variant: Variant) -> str:
    return variant.name


@pytest.mark.parametrize("known", registered(), ids=lambda known: known.name)
def test_a_head_is_found_from_its_own_keys(known: Architecture) -> None:
    state = known.build.fresh(WIDTH, 2)
    # Theirs is found by the network's own convolutions, which a fresh head leaves out.
    for prefix in (one for one in known.build.training_only if one.startswith("feature_extr")):
        state[f"{prefix}0.weight"] = torch.zeros(2, 2)
    assert detect(state, "a file").name == known.name


@pytest.mark.parametrize("variant", VARIANTS, ids=names)
def test_a_key_that_the_head_does_not_use_is_refused_by_name(variant: Variant) -> None:
    state = variant.architecture.build.fresh(WIDTH, 2)
    stray = {**state, "second_branch.weight": torch.zeros(2, 2)}
    with pytest.raises(ArchitectureError, match=r"second_branch\.weight"):
        build_head(stray, variant.architecture.name, variant.options, file="a file")


def fresh(name: str) -> dict[str, torch.Tensor]:
    known = next(known for known in registered() if known.name == name)
    return known.build.fresh(WIDTH, 2)


@pytest.mark.parametrize(
    ("head", "relative"),
    [
        ("clam_sb", "chief"),
        ("abmil_millab", "feather_millab"),
        ("abmil_millab", "transmil_millab"),
        ("dsmil", "dsmil_millab"),
        ("wikg", "wikg_millab"),
        ("mhim_abmil", "mhim_dsmil"),
        ("sc_mil_sparse", "sc_mil_contrastive"),
        ("porpoise_amil", "amil_fc_surv"),
        ("transmil", "transmil_torchmil"),
    ],
)
def test_relatives_with_near_keys_are_told_apart(head: str, relative: str) -> None:
    state = fresh(relative)
    assert detect(state, "a file").name == relative
    options = next(known.build.options for known in registered() if known.name == head)
    with pytest.raises(ArchitectureError):
        build_head(state, head, common_options(options), file="a file")


def test_a_second_scan_that_the_user_denies_is_refused() -> None:
    options = {"activation": "relu", "scan": "mamba"}
    with pytest.raises(ArchitectureError, match="A_b_log"):
        build_head(fresh("mambamil"), "mambamil", options, file="a file")


def test_the_rate_is_asked_for_the_re_ordered_scan_alone() -> None:
    with pytest.raises(UsageError, match="rate="):
        build_head(fresh("mambamil"), None, {"activation": "relu", "scan": "sr"}, file="a file")
    options = {"activation": "relu", "scan": "bi"}
    assert "rate" not in build_head(fresh("mambamil"), None, options, file="a file")[2]


def test_an_unknown_file_is_answered_with_three_heads_and_the_keys_that_differ() -> None:
    state = fresh("clam_sb")
    del state["attention_net.3.attention_c.weight"], state["classifiers.weight"]
    state["summit.weight"] = torch.zeros(2, 2)
    with pytest.raises(ArchitectureError) as caught:
        detect(state, "mine.pt")
    message = str(caught.value)
    assert message.count("the file ") == 3
    assert "clam_sb (the file lacks attention_net.3.attention_c.weight" in message
    assert "has summit.weight" in message
    assert len(message) < 1000


def test_a_name_that_two_papers_share_is_refused_with_both() -> None:
    with pytest.raises(UsageError, match=r"sc_mil_sparse .* and sc_mil_contrastive"):
        build_head(fresh("sc_mil_sparse"), "sc_mil", {}, file="a file")
