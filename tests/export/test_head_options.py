"""What a head's file cannot tell is asked for, and gradients reach all that can be trained."""

from __future__ import annotations

import pytest
from aggregator_zoo import (  # noqa: F401 - a fixture is used by its name
    MAKERS,
    MHIM,
    SR,
    build_subject,
    fresh,
    one_thread,
    subject,
    torch,
)

from edge_mil.errors import UsageError


@pytest.mark.parametrize(
    ("architecture", "options", "sentence"),
    [
        ("hopfield", {}, "heads="),
        ("hopfield", {"heads": "4"}, "does not divide"),
        ("hopfield", {"heads": "2", "update_steps_max": "-1"}, "0 or more"),
        ("hopfield", {"heads": "2", "scaling": "0"}, "positive number"),
        ("ilra", {}, "heads="),
        ("ilra", {"heads": "7"}, "does not divide"),
        ("wikg", {}, "topk="),
        ("wikg", {"topk": "0"}, "1 or more"),
        ("aem_mha", {"heads": "7"}, "does not divide"),
        ("mhim_abmil", MHIM, "attention_activation="),
        ("mambamil", {"activation": "relu"}, "scan="),
        ("mambamil", SR, "rate="),
        ("otsurv", {"survival": "nll", "rho": "1.5"}, "more than all of the bag"),
        ("otsurv", {}, "survival=nll or survival=cox"),
        ("transmil", {}, "nystrom=0.0.9 or nystrom=later"),
        ("rrtmil", {"activation": "relu"}, "attention_activation="),
        ("dtfd", {"distill": "maxs", "groups": "4", "instances": "3"}, "groups=4"),
        ("dtfd", {"distill": "maxmins", "groups": "4", "instances": "3"}, "groups=4"),
    ],
)
def test_what_the_file_cannot_tell_is_asked_for(
    architecture: str, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        build_subject(architecture, options, fresh(architecture))


TRAINED = [
    name
    for name in MAKERS
    if name.split()[0]
    in {
        *("acmil_mha", "aem_mha", "hopfield", "mhim", "ilra", "wikg"),
        *("transmil", "mhim_transmil", "mambamil", "rrtmil", "otsurv"),
    }
]


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter(name: str) -> None:
    tested = MAKERS[name]()  # a head of its own: its gradients stay
    tested.module.requires_grad_(requires_grad=True)
    features = torch.from_numpy(subject(name).features(30, 10))
    tested.module(features).pow(2).sum().backward()
    for key, parameter in tested.module.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
