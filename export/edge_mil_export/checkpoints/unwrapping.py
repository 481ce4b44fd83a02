"""Take a state dict out of the wrappers that training code puts around it.

What DTFD, MHIM-MIL, ACMIL, AEM, TransMIL, MIL-Lab and CLAM write: `docs/design/aggregators.md`,
"Wrappers of checkpoints".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mil.errors import UsageError
from edge_mil_export.errors import CheckpointError

if TYPE_CHECKING:
    import torch

DTFD_PARTS = ("classifier", "dim_reduction", "attention", "att_classifier")
WRAPPERS = ("state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "model.", "_orig_mod.")
"""Of DataParallel, of Lightning and Hugging Face wrappers, of torch.compile."""
CLAM_PARALLEL = "attention_net.module."
"""CLAM wrapped only its attention network in DataParallel. Its non-gated attention network is
itself called `module` (attention_net.3.module.0.weight), so `.module` is never removed elsewhere:
CLAM's own loader does, and breaks these checkpoints."""
CLAM_LOSS = "instance_loss_fn."


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The weights of one network.

    Attributes:
        state: Key as the network's class names it -> tensor.
        weights: student or teacher, where the file holds both; else "".
    """

    state: dict[str, torch.Tensor]
    weights: str = ""


def unwrap(loaded: Mapping[Any, Any], *, name: str, weights: str | None) -> Checkpoint:
    """Return the state dict inside of a loaded file.

    Args:
        loaded: The mapping that the file holds.
        name: Its name, for messages.
        weights: student or teacher, where it holds both.

    Raises:
        CheckpointError: There is no state dict in it.
        UsageError: It holds a student and a teacher, and `weights` does not name one.
    """
    if weights not in (None, "student", "teacher"):
        raise UsageError(
            f"There is no weights={weights}; name --arch-option weights=student or teacher."
        )
    inside, chosen = loaded, ""
    while True:
        if _is_dtfd(inside):
            joined = {
                f"{part}.{key}": tensor
                for part in DTFD_PARTS
                for key, tensor in _without_prefixes(_tensors(inside[part])).items()
            }
            return Checkpoint(joined, chosen)
        if _holds_state(inside.get("model")) and _holds_state(inside.get("teacher")):
            chosen = weights or ""
        found = _inner(inside, name, weights)
        if found is None:
            break
        inside = found
    state = _tensors(inside)
    if not state:
        held = ", ".join(str(key) for key in list(inside)[:5]) or "nothing"
        raise CheckpointError(
            f"{name} holds no state dict (it holds {held}); save model.state_dict() with "
            "torch.save, and export that."
        )
    return Checkpoint(_without_clam_wrapper(_without_prefixes(state)), chosen)


def _is_dtfd(inside: Mapping[Any, Any]) -> bool:
    return all(_is_state(inside.get(part)) for part in DTFD_PARTS)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(_tensors(value))


def _holds_state(value: object) -> bool:
    """Say whether a value is a state dict, or wraps one."""
    return _is_state(value) or (
        isinstance(value, Mapping) and any(_is_state(value.get(key)) for key in WRAPPERS)
    )


def _inner(inside: Mapping[Any, Any], name: str, weights: str | None) -> Mapping[Any, Any] | None:
    """Return the content of the outermost wrapper; None where there is no wrapper."""
    student, teacher = inside.get("model"), inside.get("teacher")
    if _holds_state(teacher):
        if not _holds_state(student):
            return _mapping(teacher)
        if weights is None:
            raise UsageError(
                f"{name} holds a student and a teacher network, which score differently; name "
                "--arch-option weights=student or weights=teacher."
            )
        return _mapping(student if weights == "student" else teacher)
    for key in WRAPPERS:
        if _holds_state(inside.get(key)):
            found = _mapping(inside[key])
            if key == "state_dict":
                # A Lightning module's own parts (a loss with class weights) lie beside the model.
                model = {k: v for k, v in found.items() if str(k).startswith("model.")}
                lightning = "pytorch-lightning_version" in inside
                return model if lightning and model else found
            return found
    return None


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
    """Strip the prefixes that every key has."""
    found = next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)
    if found is None:
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
