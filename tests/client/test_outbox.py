"""What is sent, what waits, what is dropped: numbers without gaps."""

from __future__ import annotations

import numpy as np

from edge_mil.client.outbox import RING, Outbox
from edge_mil.types import Frame

FRAMES = [Frame(np.full((1, 1, 3), shade, np.uint8)) for shade in range(12)]


def test_no_more_is_sent_than_the_service_allows() -> None:
    box = Outbox()
    for frame in FRAMES[:5]:
        box.put(frame)
    assert not box.sendable
    box.connect(2, 0, ())
    assert [box.next().sequence, box.next().sequence] == [1, 2]
    assert not box.sendable
    box.answered(1, durable=True)
    box.allow(3)
    box.allow(1)
    assert box.next().sequence == 3
    assert not box.sendable


def test_a_new_stream_sends_again_what_is_not_durable() -> None:
    box = Outbox()
    for frame in FRAMES[:4]:
        box.put(frame)
    box.connect(3, 0, ())
    for _ in range(3):
        box.next()
    box.disconnect()
    known = box.connect(3, 1, (3,))
    assert [outgoing.sequence for outgoing in known] == [1, 3]
    assert [box.next().sequence, box.next().sequence] == [2, 4]


def test_a_resumed_session_counts_on() -> None:
    box = Outbox()
    box.put(FRAMES[0])
    box.connect(3, 4, (7,))
    assert box.next().sequence == 8


def test_the_number_of_a_bad_field_is_used_again() -> None:
    box = Outbox()
    for frame in FRAMES[:3]:
        box.put(frame)
    box.connect(9, 0, ())
    box.next()
    box.next()
    box.answered(1, durable=False)
    assert box.next().sequence == 1


def test_a_full_ring_drops_the_oldest_and_the_next_header_says_so() -> None:
    box = Outbox()
    for frame in FRAMES[: RING + 3]:
        box.push_latest(frame)
    assert box.dropped == 3
    box.connect(3, 0, ())
    first, second = box.next(), box.next()
    assert (first.frame, first.sequence, first.dropped_before) == (FRAMES[3], 1, 3)
    assert (second.sequence, second.dropped_before) == (2, 0)


def test_it_is_empty_when_everything_is_answered() -> None:
    box = Outbox()
    assert box.empty
    box.put(FRAMES[0])
    box.connect(1, 0, ())
    box.next()
    assert not box.empty
    box.answered(1, durable=True)
    assert box.empty
    assert box.answered(1, durable=True) is None
