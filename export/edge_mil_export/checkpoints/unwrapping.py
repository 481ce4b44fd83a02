"""Take a state dict out of the wrappers that training code puts around it.

What DTFD, MHIM-MIL, ACMIL, AEM, TransMIL, MIL-Lab and CLAM write: `docs/design/aggregators.md`,
"Wrappers of checkpoints".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_mil_export.checkpoints.networks import (
    NETWORKS,
    check_weights,
    choose_network,
    several_networks,
)
from edge_mil_export.checkpoints.told import Told
from edge_mil_export.errors import CheckpointError

if TYPE_CHECKING:
    import torch

DTFD_PARTS = ("classifier", "dim_reduction", "attention", "att_classifier")
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network", "module")
PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")
"""Of DataParallel, of Lightning and Hugging Face wrappers, of torch.compile."""
AVERAGE_COUNT = "n_averaged"
"""Counter of torch's AveragedModel, which holds the averaged network under `module.`."""
CLAM_PARALLEL = "attention_net.module."
"""CLAM wrapped only its attention network in DataParallel. Its non-gated attention network is
itself called `module` (attention_net.3.module.0.weight), so `.module` is never removed elsewhere:
CLAM's own loader does, and breaks these checkpoints."""
CLAM_LOSS = "instance_loss_fn."
LIGHTNING = "pytorch-lightning_version"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The weights of one network.

    Attributes:
        state: Key as the network's class names it -> tensor.
        weights: Which network it is, where the file holds several; else "".
        left_out: What the file holds beside the network, by its first names: the other network,
            parts that only training needs.
        told: What training code saved beside the weights about the head.
    """

    state: dict[str, torch.Tensor]
    weights: str = ""
    left_out: tuple[str, ...] = ()
    told: Told = field(default_factory=lambda: Told({}))


def unwrap(loaded: Mapping[Any, Any], *, name: str, weights: str | None) -> Checkpoint:
    """Return the state dict inside of a loaded file.

    Args:
        loaded: The mapping that the file holds.
        name: Its name, for messages.
        weights: Which network, where it holds several; ignored where it holds one.

    Raises:
        CheckpointError: There is no state dict in it.
        UsageError: It holds several networks, and `weights` does not name one of them.
    """
    check_weights(weights)
    inside, chosen = loaded, ""
    left_out: list[str] = []
    # 1. Mappings around the state dict, from the outside in.
    while not _is_dtfd(inside):
        networks = several_networks([str(key) for key in inside if _holds_state(inside[key])])
        if networks:
            choice = choose_network(networks, weights, file=name)
            chosen = choice.weights
            left_out += [part for part in networks.values() if part != choice.part]
            inside = _mapping(inside[choice.part])
            continue
        found = _inner(inside)
        if found is None:
            break
        inside = found
    if _is_dtfd(inside):
        joined = {
            f"{part}.{key}": tensor
            for part in DTFD_PARTS
            for key, tensor in _without_prefixes(_tensors(inside[part])).items()
        }
        return Checkpoint(joined, chosen, tuple(left_out))
    state = _tensors(inside)
    if not state:
        held = ", ".join(str(key) for key in list(inside)[:5]) or "nothing"
        raise CheckpointError(
            f"{name} holds no state dict (it holds {held}); save model.state_dict() with "
            "torch.save, and export that."
        )
    # 2. Prefixes of the keys, where networks lie side by side in one state dict.
    state = _without_prefixes(state)
    networks = several_networks({key.split(".", 1)[0] for key in state if "." in key})
    if networks:
        choice = choose_network(networks, weights, file=name)
        chosen = choice.weights
        kept = f"{choice.part}."
        left_out += sorted({key.split(".", 1)[0] for key in state if not key.startswith(kept)})
        state = {key[len(kept) :]: value for key, value in state.items() if key.startswith(kept)}
    elif LIGHTNING in loaded:
        # A Lightning module's own parts (a loss with class weights) lie beside the model.
        model = {key: value for key, value in state.items() if key.startswith("model.")}
        left_out += sorted({key.split(".", 1)[0] for key in state.keys() - model.keys() if model})
        state = model or state
    state = _without_clam_wrapper(_without_prefixes(state))
    return Checkpoint(state, chosen, tuple(left_out))


def _is_dtfd(inside: Mapping[Any, Any]) -> bool:
    return all(_is_state(inside.get(part)) for part in DTFD_PARTS)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(_tensors(value))


def _holds_state(value: object) -> bool:
    """Say whether a value is a state dict, or wraps one."""
    return _is_state(value) or (
        isinstance(value, Mapping) and any(_is_state(value.get(key)) for key in WRAPPERS)
    )


def _inner(inside: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """Return the content of the outermost wrapper; None where there is no wrapper."""
    found = next((key for key in (*WRAPPERS, *NETWORKS) if _holds_state(inside.get(key))), None)
    return None if found is None else _mapping(inside[found])


def _mapping(value: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return value


def _tensors(inside: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a mapping, by their keys."""
    import torch

    return {
        key: value
        for key, value in inside.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Strip the prefixes that every key has, and the counter of an averaged model."""
    if AVERAGE_COUNT in state:
        state = {key: tensor for key, tensor in state.items() if key != AVERAGE_COUNT}
    found = next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)
    if found is None or not state:
        return state
    return _without_prefixes({key[len(found) :]: tensor for key, tensor in state.items()})


def _without_clam_wrapper(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key.replace(CLAM_PARALLEL, "attention_net.", 1)
        if key.startswith(CLAM_PARALLEL)
        else key: tensor
        for key, tensor in state.items()
        if not key.startswith(CLAM_LOSS)
    }
