"""Rebuild the head of a state dict, or make one with fresh weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edge_mil_export.architectures.detection import detect, first_match
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.options import common_options, complete_options
from edge_mil_export.architectures.registry import Architecture, named_architecture
from edge_mil_export.architectures.state_dict_reader import SHOWN_KEYS, StateDictReader
from edge_mil_export.errors import ArchitectureError

NOTHING_TOLD: Mapping[str, str] = {}


def build_head(
    state: Mapping[str, torch.Tensor],
    name: str | None,
    options: Mapping[str, str],
    *,
    file: str,
    survival: str = "",
    told: Mapping[str, str] = NOTHING_TOLD,
) -> tuple[str, Head, dict[str, str]]:
    """Rebuild the head of a state dict.

    Args:
        state: From `load_state_dict`.
        name: The architecture; None finds it by its signature.
        options: What the user said of it.
        file: The checkpoint's name, for messages.
        survival: nll or cox, where the user said that the outputs are survival: it answers the
            option of that name in heads that have it.
        told: What the file says beside its weights: option of a head -> value.

    Returns:
        The name, the head in eval mode, and its options with defaults filled in.

    Raises:
        ArchitectureError: It is of none that is known, or does not fit the one that is named.
        NotThereYetError: It is of one that a later release brings.
        UsageError: An option is missing, unknown, or has an unknown value.
    """
    found = named_architecture(name) if name else detect(state, file)
    settled = found.aliases.get(name or "", {})
    if any(option.name == "survival" and option.allows(survival) for option in found.build.options):
        options = {"survival": survival, **options}
    known = {option.name for option in found.build.options}
    options = {key: value for key, value in told.items() if key in known} | dict(options)
    complete = complete_options(found.name, found.build.options, options, settled, state)
    reader = StateDictReader(state, found.name)
    reader.ignore(found.build.training_only)
    try:
        head = found.build(reader, complete)
        reader.finish()
    except ArchitectureError as error:
        raise ArchitectureError(
            f"{file} does not fit {found.name}: {error}; {_advice(state, found)}"
        ) from error
    head.eval().requires_grad_(requires_grad=False)
    return found.build.full_name(found.name, complete), head, complete


def fresh_head(
    name: str, options: Mapping[str, str], *, feature_dim: int, outputs: int
) -> tuple[str, Head, dict[str, str]]:
    """Make a head with fresh weights; as `build_head`, for one that is named.

    Raises:
        NotThereYetError: It cannot be made without a checkpoint.
        UsageError: There is no such head, or an option is wrong.
    """
    found = named_architecture(name)
    state = found.build.fresh(feature_dim, outputs)
    settled = found.aliases.get(name, {})
    chosen = common_options(found.build.options) | {**settled} | dict(options)
    label, head, complete = build_head(state, name, chosen, file=f"a fresh {name}")
    return name if settled else label, head, complete


def _advice(state: Mapping[str, torch.Tensor], refused: Architecture) -> str:
    """Return what to do with a file that does not fit its architecture."""
    likely = first_match(state)
    if likely is not None and likely.name != refused.name:
        return f"its keys look like {likely.name}, so name that --arch, or none."
    return f"its keys begin with {', '.join(sorted(state)[:SHOWN_KEYS])}."
