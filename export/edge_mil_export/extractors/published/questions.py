"""Collect what the file of an extractor cannot tell, and ask for all of it in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_mil.errors import UsageError
from edge_mil_export.extractors.options import ACTIVATIONS, ExtractorOptions
from edge_mil_export.extractors.source import Normalisation, parse_normalisation

NORMALISE = "--normalise"
MAX_SHOWN_HEADS = 12


@dataclass(slots=True)
class Facts:
    """What is known of an extractor beside its file, each with where it comes from.

    Attributes:
        options: As the user gave them.
        normalise: As `--normalise` gives it; None where the user gave none.
        sources: Name of a source, as "preset uni" or "config.json" -> fact -> value; the
            user's options come before them, and the first source that knows a fact settles it.
        used: Facts that were needed -> value and source, for the card.
        missing: Facts that nobody knows -> the choices.
    """

    options: ExtractorOptions
    normalise: str | None
    sources: dict[str, Mapping[str, object]] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def need(self, name: str, choices: str) -> object | None:
        """Return a fact; None, and remembered as missing, where nobody knows it."""
        given = getattr(self.options, name)
        if given is not None:
            self.used[name] = f"{_shown(given)} (option)"
            return given  # type: ignore[no-any-return]
        for source, known in self.sources.items():
            if known.get(name) is not None:
                self.used[name] = f"{_shown(known[name])} ({source})"
                return known[name]
        self.missing[name] = choices
        return None

    def normalisation(self) -> Normalisation | None:
        """Return mean and standard deviation; None for a network that takes 0 to 255.

        Where nobody knows them they are remembered as missing.
        """
        if self.normalise is not None:
            self.used["mean and standard deviation"] = f"{self.normalise} ({NORMALISE})"
            return parse_normalisation(self.normalise)
        for source, known in self.sources.items():
            found = known.get("normalisation")
            if isinstance(found, Normalisation):
                shown = "/".join(
                    ",".join(f"{n:g}" for n in part) for part in (found.mean, found.std)
                )
                self.used["mean and standard deviation"] = f"{shown} ({source})"
                return found
        self.missing[NORMALISE] = (
            "R,G,B/R,G,B, mean and standard deviation of 0 to 1, or none; ImageNet's are "
            "0.485,0.456,0.406/0.229,0.224,0.225"
        )
        return None

    def ask_all(self, what: str, hint: str = "") -> None:
        """Refuse while a fact is missing, mean and standard deviation among them.

        Args:
            what: The file and its shape, as the beginning of the sentence.
            hint: Ends the sentence, as "or name one of its presets".

        Raises:
            UsageError: Facts are missing; the sentence lists their choices.
        """
        self.normalisation()
        if not self.missing:
            return
        asked = "; ".join(
            f"{name if name == NORMALISE else f'--extractor-option {name}='} ({choices})"
            for name, choices in self.missing.items()
        )
        raise UsageError(
            f"{what} does not say everything that its features need; name {asked}{hint}."
        )


def heads_choices(width: int) -> str:
    """Return the numbers of heads that a width can be divided by."""
    found = [n for n in range(1, width + 1) if width % n == 0 and width // n >= 2]
    shown = ", ".join(str(n) for n in found[:MAX_SHOWN_HEADS])
    return (
        f"a divisor of the width {width}: {shown}{', ...' if len(found) > MAX_SHOWN_HEADS else ''}"
    )


def check_heads(heads: object, width: int, *, file: str, name: str = "num_heads") -> int:
    """Return the number of attention heads.

    Raises:
        UsageError: It does not divide the width.
    """
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise UsageError(
            f"{name}={heads} does not divide the width {width} of {file}; "
            f"name {heads_choices(width)}."
        )
    return heads


def check_pooling(pooling: object, choices: Sequence[str], *, file: str) -> str:
    """Return the pooling.

    Raises:
        UsageError: The network of this file cannot pool so.
    """
    if pooling not in choices:
        raise UsageError(
            f"{file} cannot be pooled by pooling={pooling}; it can by {', '.join(choices)}."
        )
    return str(pooling)


def activation_choices() -> str:
    """Return what the activation may be, and who uses which."""
    first, second = ACTIVATIONS
    return f"{first}, or {second} in OpenAI's CLIP and PLIP"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
