"""Checks that every backend makes alike: the inputs of a run, and a loading that was cancelled."""

from __future__ import annotations

import threading

from edge_mil.errors import EngineError, FrameError
from edge_mil.protocols import Arrays, Graph, InputTypes


def check_arrays(label: str, inputs: InputTypes, arrays: Arrays) -> None:
    """Check that there is one array for each input, of its dtype and shape.

    Args:
        label: Name of the network in the message.
        inputs: What the network takes.
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
    for name in arrays:
        if name not in inputs:
            raise FrameError(f"{label} has no input {name!r}; it takes {', '.join(inputs)}.")


def check_not_cancelled(graph: Graph, cancel: threading.Event | None) -> None:
    """Refuse to load a graph that nobody waits for any more.

    Raises:
        EngineError: `cancel` is set.
    """
    if cancel is not None and cancel.is_set():
        raise EngineError(f"{graph.label} was not loaded: the loading was cancelled.")
