"""What one field says about the stage and the slide, and how it is stored."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge_mil.errors import StoreError
from edge_mil.imaging.registration import PairOutcome

Vector = tuple[float, float]
"""x and y, stage um."""


@dataclass(frozen=True, slots=True)
class SeenPair:
    """A field against an earlier one.

    Attributes:
        earlier: Sequence of the earlier field.
        outcome: Whether they agree at the stage's position, elsewhere, or nowhere.
        image_um: Displacement by the images through the declared affine; None where nothing fits.
        overlap: Share of the field that overlaps.
    """

    earlier: int
    outcome: PairOutcome
    image_um: Vector | None
    overlap: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one field says; or a release of the hold, whose sequence is 0.

    Attributes:
        sequence: Number of the field.
        at_um: Stage position of its centre, as it was sent.
        pairs: The field against earlier ones.
        searches: Searches over all shifts that it took.
        scale_ratio: Magnification over that of its neighbours, where it fits at another; else 1.
        refused: Whether the field was refused for its position.
        release: How a person let a held session go on: "same-slide" or "insist"; "" for a field.
    """

    sequence: int
    at_um: Vector = (0.0, 0.0)
    pairs: tuple[SeenPair, ...] = ()
    searches: int = 0
    scale_ratio: float = 1.0
    refused: bool = False
    release: str = ""

    def to_json(self) -> str:
        """Return it as JSON text; floats are written so that they are read back to the bit."""
        return json.dumps(
            {
                "sequence": self.sequence,
                "at_um": self.at_um,
                "pairs": [
                    [pair.earlier, pair.outcome.value, pair.image_um, pair.overlap]
                    for pair in self.pairs
                ],
                "searches": self.searches,
                "scale_ratio": self.scale_ratio,
                "refused": self.refused,
                "release": self.release,
            }
        )

    @staticmethod
    def from_json(text: str) -> Evidence:
        """Read what `to_json` wrote.

        Raises:
            StoreError: The text is not that.
        """
        try:
            raw = json.loads(text)
            x, y = raw["at_um"]
            return Evidence(
                raw["sequence"],
                (x, y),
                tuple(
                    SeenPair(earlier, PairOutcome(outcome), image and (image[0], image[1]), overlap)
                    for earlier, outcome, image, overlap in raw["pairs"]
                ),
                raw["searches"],
                raw["scale_ratio"],
                raw["refused"],
                raw["release"],
            )
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise StoreError(
                f"The stored geometry of a session cannot be read ({error})."
            ) from error
