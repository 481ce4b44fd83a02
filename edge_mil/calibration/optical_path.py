"""The optics that a calibration holds for, in the user's own words."""

from __future__ import annotations

from msgspec import Struct, structs


class OpticalPath(Struct, frozen=True, forbid_unknown_fields=True):
    """The parts between slide and sensor; "" for one that nobody named.

    Attributes:
        camera: As "IMX250 bin1".
        objective: As "20x/0.45".
        tube_lens: Tube lens or adaptor, as "0.5x C-mount".
    """

    camera: str = ""
    objective: str = ""
    tube_lens: str = ""

    def differing_part(self, other: OpticalPath) -> str:
        """Return the name of a part that both name differently, "" where they agree."""
        for part, mine in structs.asdict(self).items():
            theirs = getattr(other, part)
            if mine and theirs and mine.strip().lower() != theirs.strip().lower():
                return part
        return ""

    def filled_from(self, other: OpticalPath) -> OpticalPath:
        """Return this path with the parts that it does not name taken from another."""
        named = {part: name for part, name in structs.asdict(self).items() if name}
        return structs.replace(other, **named)

    def __str__(self) -> str:
        return ", ".join(filter(None, structs.astuple(self))) or "unnamed optics"
