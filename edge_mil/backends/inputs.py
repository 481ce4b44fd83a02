"""What a network is given, checked alike for every library."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge_mil.errors import FrameError


def check_arrays(
    label: str,
    inputs: Mapping[str, tuple[str, tuple[int | None, ...]]],
    arrays: Mapping[str, npt.NDArray[np.generic]],
) -> None:
    """Check that every input is there, of its dtype and shape.

    Args:
        label: What the network is, for the message.
        inputs: As `Network.inputs`.
        arrays: What it is given.

    Raises:
        FrameError: An input's name, dtype or shape does not fit.
    """
    for name, (dtype, shape) in inputs.items():
        array = arrays.get(name)
        fits = (
            array is not None
            and array.dtype.name == dtype
            and array.ndim == len(shape)
            and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
        )
        if not fits:
            got = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise FrameError(f"{label} wants {name} as {dtype} {shape}, got {got}.")
