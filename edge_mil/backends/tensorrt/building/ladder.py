"""Recipes to try in turn where a build runs out of memory or time: each asks for less."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edge_mil.backends.tensorrt.engines.recipe import MIB, BatchProfile, Recipe


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the ladder may ask for at most.

    Attributes:
        optimisation_level: How long to search for fast kernels, 0 to 5.
        largest_batch: Rows of a batch; buffers and activations grow with them.
        workspace_bytes: Scratch memory of the kernels.
        time_share: Of the time that a build may take.
    """

    optimisation_level: int
    largest_batch: int
    workspace_bytes: int
    time_share: float


STEPS = (
    Step(3, 32, 512 * MIB, 1.0),
    Step(2, 16, 256 * MIB, 0.5),
    Step(1, 8, 128 * MIB, 0.25),
)
"""The first is what a build asks for where nothing is short. An engine of the last step runs the
same numbers, with kernels that were searched for less long and a quarter of the memory."""


def list_recipes(recipe: Recipe) -> list[tuple[Recipe, float]]:
    """Return a recipe, then those that ask for less, each with its share of the time."""
    found = [(recipe, 1.0)]
    for step in STEPS[1:]:
        profile = recipe.profile
        batch = min(profile.largest, step.largest_batch)
        lower = dataclasses.replace(
            recipe,
            profile=BatchProfile(profile.smallest, min(profile.usual, batch), batch),
            workspace_bytes=min(recipe.workspace_bytes, step.workspace_bytes),
            optimisation_level=min(recipe.optimisation_level, step.optimisation_level),
        )
        found.append((lower, step.time_share))
    return found


def describe(recipe: Recipe) -> str:
    """Return what a recipe asks for, in words."""
    return (
        f"optimisation level {recipe.optimisation_level}, batches of at most "
        f"{recipe.profile.largest}, {recipe.workspace_bytes // MIB} MiB of workspace"
    )
