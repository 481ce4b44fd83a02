"""Clients that keep the service waiting, with limits short enough for a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from running_service import tissue_frames

from edge_mil.errors import ClientSilentError
from edge_mil.rpc.frame_assembly import FrameAssembly
from edge_mil.rpc.frames import encode_header
from edge_mil.service import silence
from edge_mil.service.byte_budget import ByteBudget, bytes_of
from edge_mil.service.silence import Silence, SilentStreams, next_message
from edge_mil.v1 import edge_mil_pb2 as pb

SHORT_S, LONG_S = 0.05, 30.0


async def nothing() -> AsyncIterator[str]:
    await asyncio.sleep(LONG_S)
    yield "late"


async def at_once() -> AsyncIterator[str]:
    yield "start"


def test_a_first_message_that_does_not_come_ends_the_stream() -> None:
    async def run() -> None:
        with pytest.raises(ClientSilentError, match="first message"):
            await SilentStreams(2, SHORT_S).first_message(nothing())
        assert await SilentStreams(2, SHORT_S).first_message(at_once()) == "start"
        with pytest.raises(ClientSilentError, match="next chunk"):
            await next_message(nothing(), SHORT_S, "next chunk")

    asyncio.run(run())


def test_a_crowd_of_silent_streams_keeps_nobody_out() -> None:
    async def run() -> None:
        streams = SilentStreams(3, LONG_S)
        crowd = [asyncio.ensure_future(streams.first_message(nothing())) for _ in range(50)]
        await asyncio.sleep(0)
        assert await streams.first_message(at_once()) == "start"
        ended = [task for task in crowd if task.done()]
        # All but the newest, which still wait.
        assert len(ended) >= 47
        assert all(isinstance(task.exception(), ClientSilentError) for task in ended)
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    asyncio.run(run())


def test_a_field_that_stops_half_sent_ends_the_stream_and_one_that_waits_for_us_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(silence, "CHUNK_S", SHORT_S)

    async def run() -> None:
        watched = Silence(idle_s=LONG_S)
        watched.assembly = FrameAssembly(encode_header(next(tissue_frames(1)), 7))
        watched.under_way = 1
        waiting = asyncio.ensure_future(watched.watch())
        await asyncio.sleep(4 * SHORT_S)
        assert not waiting.done()
        watched.under_way = 0
        with pytest.raises(ClientSilentError, match="Field 7 did not come to its end: 0 of"):
            await asyncio.wait_for(waiting, LONG_S)

    asyncio.run(run())


def test_a_stream_without_fields_ends_with_a_reason_that_clients_know() -> None:
    async def run() -> None:
        with pytest.raises(ClientSilentError) as caught:
            await asyncio.wait_for(Silence(idle_s=SHORT_S).watch(), LONG_S)
        assert caught.value.details["reason"] == "STREAM_IDLE"

    asyncio.run(run())


def test_fields_borrow_from_one_budget_in_the_order_of_asking() -> None:
    async def run() -> None:
        budget, order = ByteBudget(10), []

        async def borrow(name: str, count: int) -> None:
            await budget.borrow(count)
            order.append(name)

        await borrow("first", 8)
        large = asyncio.ensure_future(borrow("large", 9))
        small = asyncio.ensure_future(borrow("small", 1))
        gone = asyncio.ensure_future(borrow("gone", 5))
        await asyncio.sleep(0)
        assert order == ["first"]
        gone.cancel()
        budget.give_back(8)
        await asyncio.gather(large, small)
        assert order == ["first", "large", "small"]
        assert budget.free == 0
        budget.give_back(10)
        assert budget.free == budget.total

    asyncio.run(run())


def test_a_loan_counts_bytes_and_pixels_and_is_given_back_once() -> None:
    async def run() -> None:
        header = pb.FieldHeader(width=4, height=5, encoding=pb.ENCODING_JPEG, total_bytes=100)
        assert bytes_of(header) == 100 + 4 * 5 * 3
        assert bytes_of(encode_header(next(tissue_frames(1)), 1)) == 192 * 192 * 3
        budget, room = ByteBudget(1000), asyncio.Semaphore(1)
        loan = await budget.lend(header, room)
        assert (budget.free, room.locked()) == (840, True)
        loan.give_back()
        loan.give_back()
        assert (budget.free, room.locked()) == (1000, False)

    asyncio.run(run())
