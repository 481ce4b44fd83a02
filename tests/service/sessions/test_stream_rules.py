"""FieldStream alone: what a client does while an answer is being sent is seen too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from edge_mil.errors import ProtocolError, SessionFencedError
from edge_mil.service.byte_budget import ByteBudget
from edge_mil.service.sessions.field_stream import FieldStream
from edge_mil.service.sessions.field_worker import FieldWorker
from edge_mil.service.sessions.live_session import WriteLease
from edge_mil.v1 import edge_mil_pb2 as pb

# Complete with its header, and not there yet: answered at once, without a session.
FIELD = pb.StreamFieldsRequest(
    header=pb.FieldHeader(sequence=1, encoding=pb.ENCODING_SHARED_MEMORY)
)
SOON_S = 5.0


def live() -> SimpleNamespace:
    """Return all that a stream of rejected fields needs of a session."""
    return SimpleNamespace(room=asyncio.Semaphore(6), detach=lambda _: None)


def test_a_rule_broken_while_an_answer_is_sent_ends_the_stream() -> None:
    async def run() -> None:
        answered = asyncio.Event()

        async def requests() -> AsyncIterator[pb.StreamFieldsRequest]:
            yield FIELD
            await answered.wait()
            yield pb.StreamFieldsRequest()

        with ThreadPoolExecutor(1) as decoders:
            stream = FieldStream(live(), WriteLease(), FieldWorker(decoders), ByteBudget(1 << 20))
            responses = stream.responses(requests(), pb.StreamReady())
            assert (await anext(responses)).HasField("ready")
            assert (await anext(responses)).result.error.reason == "NOT_THERE_YET"
            # gRPC sends the answer, and the next message is read meanwhile.
            answered.set()
            await asyncio.sleep(0.01)
            with pytest.raises(ProtocolError, match="empty message"):
                await asyncio.wait_for(anext(responses), SOON_S)

    asyncio.run(run())


def test_a_session_lost_while_an_answer_is_sent_ends_the_stream() -> None:
    async def run() -> None:
        async def requests() -> AsyncIterator[pb.StreamFieldsRequest]:
            yield FIELD
            await asyncio.sleep(SOON_S)

        lease = WriteLease()
        with ThreadPoolExecutor(1) as decoders:
            stream = FieldStream(live(), lease, FieldWorker(decoders), ByteBudget(1 << 20))
            responses = stream.responses(requests(), pb.StreamReady())
            await anext(responses)
            await anext(responses)
            lease.revoke(SessionFencedError("Another client took it."))
            with pytest.raises(SessionFencedError):
                await asyncio.wait_for(anext(responses), SOON_S)

    asyncio.run(run())
