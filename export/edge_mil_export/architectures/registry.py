"""The registered heads: a name, the keys that tell it from the others, and the class."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edge_mil.errors import NotThereYetError, UsageError
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.options import common_options
from edge_mil_export.architectures.unsupported import UNSUPPORTED

AnyHead = TypeVar("AnyHead", bound=type[Head])

CLOSE_NAMES = 3
"""Names that the message about an unknown one proposes."""
AMBIGUOUS = {
    "sc_mil": 'sc_mil_sparse ("Sparsely Coded", arXiv:2311.00048) and sc_mil_contrastive '
    '("Supervised Contrastive", arXiv:2303.13405)'
}
"""Name that two papers share -> the heads that it may mean."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A registered head.

    Attributes:
        name: As `--arch` takes it.
        keys: Key patterns that all must be there; "a|b" is either, "!a" must not be there.
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
        keys: Keys that tell it from the others, all of them; * stands for any characters, "a|b"
            for either, and "!a" for a key that must not be there.
        row: Place among the signatures, of which the first that matches wins; a user's own come
            before ours.
        aliases: Other names -> options that the name settles.
    """

    def register(build: AnyHead) -> AnyHead:
        _REGISTERED[name] = Architecture(name, keys, build, row, dict(aliases or {}))
        return build

    return register


def registered() -> list[Architecture]:
    """Return every registered head, in the order of registration."""
    return list(_REGISTERED.values())


def names() -> list[str]:
    """Return every name that `--arch` takes in this release."""
    return sorted({name for a in registered() for name in (a.name, *a.aliases)})


def named_architecture(name: str) -> Architecture:
    """Return the head of a name or alias.

    Raises:
        NotThereYetError: A later release brings it.
        UsageError: There is none of that name, or two.
    """
    for found in registered():
        if name == found.name or name in found.aliases:
            return found
    if name in AMBIGUOUS:
        raise UsageError(f"{name} names two heads: {AMBIGUOUS[name]}; name one with --arch.")
    if any(name == head.name for head in UNSUPPORTED):
        raise NotThereYetError(f"{name} is not there yet: it comes with the next release.")
    close = difflib.get_close_matches(name, names(), CLOSE_NAMES)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(
        f"There is no architecture {name!r}; {hint}edge-mil heads lists what --arch takes, and "
        "without --arch it is found from the keys."
    )


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


def variants() -> list[Variant]:
    """Return every network that is registered, each once, by name."""
    found: dict[str, Variant] = {}
    for known in registered():
        settled = [{}, *(dict(options) for options in known.aliases.values() if options)]
        for fixed in settled:
            options = common_options(known.build.options) | fixed
            complete = {option.name: option.default for option in known.build.options} | options
            name = known.build.full_name(known.name, complete)
            alias = next((a for a, o in known.aliases.items() if o and dict(o) == fixed), name)
            label = name if name != known.name else alias
            found.setdefault(label, Variant(label, known, options))
    return [found[name] for name in sorted(found)]
