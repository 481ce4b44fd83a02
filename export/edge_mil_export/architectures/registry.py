"""Which architecture a state dict is of: signatures, and the sentence for what fits none."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import torch

from edge_mil.errors import NotThereYetError, UsageError
from edge_mil_export.architectures.head import COUNT, INTEGER, NUMBER, Head, Option
from edge_mil_export.architectures.state_dict_reader import SHOWN_KEYS, StateDictReader
from edge_mil_export.architectures.unsupported import UNSUPPORTED, UnsupportedHead
from edge_mil_export.errors import ArchitectureError

NEAREST = 3
"""Architectures that the message about an unknown file names."""

AnyHead = TypeVar("AnyHead", bound=type[Head])


@dataclass(frozen=True, slots=True)
class Architecture:
    """A registered head.

    Attributes:
        name: As `--arch` takes it.
        keys: Key patterns that all must be there; "a|b" is either.
        build: The class.
        row: Row of the signature table: the first that matches wins.
        aliases: Other names of the same network, and the options that such a name settles.
    """

    name: str
    keys: tuple[str, ...]
    build: type[Head]
    row: int
    aliases: Mapping[str, Mapping[str, str]]


_REGISTERED: dict[str, Architecture] = {}


def architecture(
    name: str,
    *,
    keys: tuple[str, ...],
    row: int = 0,
    aliases: Mapping[str, Mapping[str, str]] | None = None,
) -> Callable[[AnyHead], AnyHead]:
    """Register a head: `@architecture("mine", keys=("trunk.0.weight", "top.weight"))`.

    Args:
        name: As `--arch` takes it.
        keys: Keys that tell it from the others, all of them; * stands for any characters and "a|b"
            for either.
        row: Place among the signatures, of which the first that matches wins; a user's own come
            before ours.
        aliases: Other names -> options that the name settles.
    """

    def register(build: AnyHead) -> AnyHead:
        _REGISTERED[name] = Architecture(name, keys, build, row, dict(aliases or {}))
        return build

    return register


def names() -> list[str]:
    """Return every name that `--arch` takes in this release."""
    found = {name for a in _REGISTERED.values() for name in (a.name, *a.aliases)}
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Variant:
    """A network of its own: an architecture, or one that an alias with options makes of it.

    Attributes:
        name: As the bundle names it.
        architecture: Its class and signature.
        options: The options that have no default: what the name settles, a common value, or the
            first.
    """

    name: str
    architecture: Architecture
    options: Mapping[str, str]


COMMON = {
    "region_num": "8",
    "rate": "5",
    "topk": "6",
    "heads": "8",
    "groups": "5",
    "instances": "10",
    "attention_activation": "tanh",
}
"""What is taken of an option that is asked, where a head is made without a checkpoint."""


def variants() -> list[Variant]:
    """Return every network that is registered, each once, by name."""
    found: dict[str, Variant] = {}
    for known in _REGISTERED.values():
        settled = [{}, *(dict(options) for options in known.aliases.values() if options)]
        for fixed in settled:
            options = freely_chosen(known.build) | fixed
            complete = {option.name: option.default for option in known.build.options} | options
            name = known.build.full_name(known.name, complete)
            alias = next((a for a, o in known.aliases.items() if o and dict(o) == fixed), name)
            label = name if name != known.name else alias
            found.setdefault(label, Variant(label, known, options))
    return [found[name] for name in sorted(found)]


def freely_chosen(build: type[Head]) -> dict[str, str]:
    """Return a value for every option that has no default: a common one, or the first."""
    asked = [option for option in build.options if not option.default]
    return {option.name: COMMON.get(option.name, option.values[0]) for option in asked}


def fresh_head(
    name: str, options: Mapping[str, str], *, feature_dim: int, outputs: int
) -> tuple[str, Head, dict[str, str]]:
    """Make a head with fresh weights; as `build_head`, for one that is named.

    Raises:
        NotThereYetError: It cannot be made without a checkpoint.
        UsageError: There is no such head, or an option is wrong.
    """
    found = _named(name)
    state = found.build.fresh(feature_dim, outputs)
    settled = found.aliases.get(name, {})
    chosen = freely_chosen(found.build) | {**settled} | dict(options)
    label, head, complete = build_head(state, name, chosen, file=f"a fresh {name}")
    return name if settled else label, head, complete


def build_head(
    state: Mapping[str, torch.Tensor], name: str | None, options: Mapping[str, str], *, file: str
) -> tuple[str, Head, dict[str, str]]:
    """Rebuild the head of a state dict.

    Args:
        state: From `load_state_dict`.
        name: The architecture; None finds it by its signature.
        options: What the user said of it.
        file: The checkpoint's name, for messages.

    Returns:
        The name, the head in eval mode, and its options with defaults filled in.

    Raises:
        ArchitectureError: It is of none that is known, or does not fit the one that is named.
        NotThereYetError: It is of one that a later release brings.
        UsageError: An option is missing, unknown, or has an unknown value.
    """
    found = _named(name) if name else _detected(state, file)
    settled = found.aliases.get(name or "", {})
    complete = _complete(found, {**options}, settled, state)
    layout = StateDictReader(state, found.name)
    layout.ignore(found.build.training_only)
    try:
        head = found.build(layout, complete)
        layout.finish()
    except ArchitectureError as error:
        raise ArchitectureError(
            f"{file} does not fit {found.name}: {error}; {_advice(state, found)}"
        ) from error
    head.eval().requires_grad_(requires_grad=False)
    return found.build.full_name(found.name, complete), head, complete


def _named(name: str) -> Architecture:
    for found in _REGISTERED.values():
        if name == found.name or name in found.aliases:
            return found
    if any(name == later.name for later in UNSUPPORTED):
        raise NotThereYetError(f"{name} is not there yet: it comes with the next release.")
    close = difflib.get_close_matches(name, names(), 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"There is no architecture {name!r}; {hint}--arch takes {', '.join(names())}.")


def _detected(state: Mapping[str, torch.Tensor], file: str) -> Architecture:
    candidate = _first_match(state)
    if isinstance(candidate, Architecture):
        return candidate
    if candidate is not None:
        raise NotThereYetError(
            candidate.reason.format(file=file)
            or f"{file} looks like {candidate.name}; that head is not there yet, it comes with the "
            "next release."
        )
    raise ArchitectureError(
        f"The architecture of {file} cannot be told from its keys; nearest are "
        f"{_nearest(state)}. Name it with --arch NAME if it is one of {', '.join(names())}."
    )


def _candidates() -> list[Architecture | UnsupportedHead]:
    """Return every signature, those of the table in its order."""
    return sorted([*_REGISTERED.values(), *UNSUPPORTED], key=lambda candidate: candidate.row)


def _first_match(state: Mapping[str, torch.Tensor]) -> Architecture | UnsupportedHead | None:
    for candidate in _candidates():
        if all(_is_there(pattern, state) for pattern in candidate.keys):
            return candidate
    return None


def _advice(state: Mapping[str, torch.Tensor], tried: Architecture) -> str:
    """Say what to do with a file that does not fit the architecture that was tried."""
    likely = _first_match(state)
    if likely is not None and likely.name != tried.name:
        return f"its keys look like {likely.name}, so name that --arch, or none."
    return f"its keys begin with {', '.join(sorted(state)[:SHOWN_KEYS])}."


def _is_there(pattern: str, state: Mapping[str, torch.Tensor]) -> bool:
    """Say whether a key of the file matches a pattern."""
    return any(
        one in state or ("*" in one and any(fnmatchcase(key, one) for key in state))
        for one in pattern.split("|")
    )


def _nearest(state: Mapping[str, torch.Tensor]) -> str:
    """Name the nearest architectures and the first three keys in which each differs."""
    held = {_general(key) for key in state}

    def missing(candidate: Architecture | UnsupportedHead) -> list[str]:
        return [pattern for pattern in candidate.keys if not _is_there(pattern, state)]

    def likeness(candidate: Architecture | UnsupportedHead) -> tuple[float, float]:
        wanted = {_general(key.split("|")[0]) for key in candidate.keys}
        words = {part for key in wanted for part in key.split(".")}
        found = {part for key in held for part in key.split(".")}
        here = 1 - len(missing(candidate)) / len(candidate.keys)
        return here, len(words & found) / max(len(words | found), 1)

    ranked = sorted(_candidates(), key=likeness, reverse=True)[:NEAREST]
    near = "; ".join(
        f"{c.name} (it lacks {', '.join(key.split('|')[0] for key in missing(c)[:SHOWN_KEYS])})"
        for c in ranked
    )
    return f"{near}, and its first keys are {', '.join(sorted(state)[:SHOWN_KEYS])}"


def _general(key: str) -> str:
    return re.sub(r"\d+", "#", key)


def _allowed(option: Option, value: str) -> bool:
    """Say whether an option may have a value."""
    if option.values not in (COUNT, INTEGER, NUMBER):
        return value in option.values
    if value == option.default:
        return True
    try:
        number = float(value) if option.values == NUMBER else int(value)
    except ValueError:
        return False
    return math.isfinite(number) and (number > 0 or (number == 0 and option.values == COUNT))


def _complete(
    found: Architecture,
    given: dict[str, str],
    settled: Mapping[str, str],
    state: Mapping[str, torch.Tensor],
) -> dict[str, str]:
    """Return the options of a head, all of them, each with an allowed value."""
    known = {option.name: option for option in found.build.options}
    for name in given:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise UsageError(f"{found.name} has no option {name!r}; it takes {takes}.")
    complete: dict[str, str] = {}
    for option in found.build.options:
        if option.asked is not None and not option.asked(state):
            continue  # the file makes it pointless: accepted, and ignored
        asked = settled.get(option.name, option.default)
        value = given.get(option.name, asked)
        choice = " or ".join(f"{option.name}={v}" for v in option.values)
        if not asked and option.name not in given:
            raise UsageError(
                f"{found.name} needs --arch-option {choice}: the file does not say which, and "
                f"{option.changes} depends on it."
            )
        if not _allowed(option, value):
            raise UsageError(
                f"{option.name}={value} is none that {found.name} knows; name {choice}."
            )
        fixed = settled.get(option.name)
        if fixed and value != fixed:
            raise UsageError(
                f"--arch and --arch-option {option.name}={value} disagree: the architecture named "
                f"has {option.name}={fixed}. Leave one of them out."
            )
        complete[option.name] = value
    return complete
