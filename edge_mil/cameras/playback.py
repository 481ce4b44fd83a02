"""Read frames ahead in two threads and yield them in order, no faster than asked."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edge_mil.types import Frame

Stop = TypeVar("Stop", bound=Hashable)

READERS = 2
"""Threads that read. An OpenSlide handle is thread-safe, and a field of 5 Mpx takes it 90 ms."""

READ_AHEAD = 4
"""Frames read before they are wanted: enough to hide a slow read, few enough for memory."""


def play(
    route: Iterable[Stop], read: Callable[[Stop], Frame], fps: float | None
) -> Iterator[Frame]:
    """Yield the frame of each stop, in order, with the time at which it is yielded.

    A stop that follows itself is read once. Closing the generator ends the threads.

    Args:
        route: Stops to visit.
        read: Reads the frame of a stop; called in other threads, two at a time. What it raises is
            raised here in place of that frame.
        fps: Upper limit of frames per second; None: no limit.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="camera") as pool:
        waiting: collections.deque[Future[Frame]] = collections.deque()
        stops, last = iter(route), None
        next_s = time.monotonic()
        try:
            while True:
                while len(waiting) < READ_AHEAD:
                    try:
                        stop = next(stops)
                    except StopIteration:
                        break
                    if last is None or last[0] != stop:
                        last = stop, pool.submit(read, stop)
                    waiting.append(last[1])
                if not waiting:
                    return
                frame = waiting.popleft().result()
                if fps is not None:
                    time.sleep(max(0.0, next_s - time.monotonic()))
                    next_s = max(next_s, time.monotonic() - 1 / fps) + 1 / fps
                yield dataclasses.replace(frame, capture_time_s=time.time())
        finally:
            for future in waiting:
                future.cancel()
