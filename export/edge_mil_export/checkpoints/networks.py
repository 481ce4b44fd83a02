"""Tell the networks of one file apart: student and teacher, query and key encoder, average.

Training code often saves two complete networks with different weights. Which of them is meant is
not in the file, so it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_mil.errors import UsageError

PLAIN, AVERAGED = "model", "ema"
NETWORKS: Mapping[str, str] = {
    "student": "student",
    "teacher": "teacher",
    "encoder_q": "encoder_q",
    "encoder_k": "encoder_k",
    "base_encoder": "base",
    "momentum_encoder": "momentum",
    "base_enc": "base",
    "momentum_enc": "momentum",
    "ema": AVERAGED,
    "ema_model": AVERAGED,
    "model_ema": AVERAGED,
    "ema_state_dict": AVERAGED,
    "state_dict_ema": AVERAGED,
    "model_ema_state_dict": AVERAGED,
    "state_dict": PLAIN,
    "model": PLAIN,
    "model_state_dict": PLAIN,
}
"""What files call a network -> what `--weights` calls it.

MoCo saves `encoder_q` and `encoder_k`, MoCo v3 `base_encoder` and `momentum_encoder` (COBRA
`base_enc` and `momentum_enc`), DINO and
DINOv2 `student` and `teacher`, MHIM-MIL `model` and `teacher`, timm `state_dict_ema` (DeiT
`model_ema`) beside the weights themselves, and Lightning modules often `ema_model` beside `model`.
"""
PARTNERS = (
    frozenset({"student", "teacher"}),
    frozenset({"encoder_q", "encoder_k"}),
    frozenset({"base", "momentum"}),
    frozenset({PLAIN, "teacher"}),
    frozenset({PLAIN, AVERAGED}),
)
WEIGHTS = ("student", "teacher", "encoder_q", "encoder_k", "base", "momentum", PLAIN, AVERAGED)
"""What `--weights` may be."""


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """One network of a file.

    Attributes:
        part: What the file calls it.
        weights: What `--weights` calls it.
    """

    part: str
    weights: str


def several_networks(parts: Iterable[str]) -> dict[str, str]:
    """Return the networks among the parts of a file, where there are two or more.

    Args:
        parts: Names of what the file holds, each a whole state dict.

    Returns:
        What `--weights` calls a network -> what the file calls it; empty where there is only one.
    """
    found: dict[str, str] = {}
    for part in NETWORKS:
        if part in parts:
            found.setdefault(NETWORKS[part], part)
    if not any(partners <= found.keys() for partners in PARTNERS):
        return {}
    if "teacher" in found and PLAIN in found and "student" not in found:
        # MHIM-MIL and its relatives call the student `model`.
        found = {"student" if name == PLAIN else name: part for name, part in found.items()}
    return {name: found[name] for name in WEIGHTS if name in found}


def choose_network(networks: Mapping[str, str], weights: str | None, *, file: str) -> NetworkChoice:
    """Return the network that the user named.

    Args:
        networks: From `several_networks`.
        weights: As `--weights` gives it; the file's own name of a network is taken too.
        file: Name of the file, for messages.

    Raises:
        UsageError: None is named, or one that the file does not hold.
    """
    held = [f"weights={name}" for name in networks]
    if weights is None:
        raise UsageError(
            f"{file} holds {len(held)} networks with different weights; choose by --weights NAME: "
            f"{', '.join(held[:-1])} or {held[-1]}."
        )
    for name, part in networks.items():
        if weights in (name, part):
            return NetworkChoice(part, name)
    raise UsageError(f"{file} has no weights={weights}; it holds {' and '.join(held)}.")


def check_weights(weights: str | None) -> None:
    """Refuse a name that no file uses.

    Raises:
        UsageError: There is no such network.
    """
    if weights is not None and weights not in WEIGHTS and weights not in NETWORKS:
        raise UsageError(f"There is no weights={weights}; name {', '.join(WEIGHTS)}.")
