"""One field from its bytes to its durable answer: decoded in a pool, folded on the worker.

Nothing here belongs to a stream: a client that goes away changes nothing of what it sent.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from edge_mil.errors import (
    EdgeMilError,
    SessionClosedError,
    SessionStateError,
    StoreError,
)
from edge_mil.rpc.frame_assembly import FrameAssembly
from edge_mil.rpc.frames import check_payload, identity
from edge_mil.rpc.image_codecs import decode_frame
from edge_mil.rpc.results import add_timings, encode_result
from edge_mil.rpc.status import to_field_error
from edge_mil.service.sessions.live_session import LiveSession
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb

ENDS_STREAM = (StoreError, SessionClosedError, SessionStateError)
"""Errors of the session, not of the field: later fields would meet them too."""


@dataclass(frozen=True, slots=True)
class DecodedField:
    """A field's frame, the CRC that tells it from another of its number, and the time it took."""

    frame: Frame
    crc: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FieldOutcome:
    """An answer, and when it may be sent.

    Attributes:
        message: The answer.
        durable: Done when its record is on the disk; None where there is no record.
        folded_s: When the fold ended, seconds of the monotonic clock; 0 for a replay.
    """

    message: pb.FieldResult
    durable: Future[None] | None = None
    folded_s: float = 0.0


class FieldWorker:
    """Runs fields through decode and fold, in the order in which they are handed in."""

    def __init__(self, decoders: ThreadPoolExecutor) -> None:
        self._decoders = decoders

    def start(self, live: LiveSession, assembly: FrameAssembly) -> asyncio.Future[FieldOutcome]:
        """Start one whole field; return its answer to come."""
        if assembly.rejected is not None:
            rejected: asyncio.Future[FieldOutcome] = asyncio.get_running_loop().create_future()
            rejected.set_result(_failed(assembly.header.sequence, assembly.rejected))
            return rejected
        received = time.monotonic()
        decoded = self._decoders.submit(_decode, assembly)
        outcome = asyncio.wrap_future(live.worker.submit(_fold, live, assembly, decoded, received))
        # When the stream breaks nobody asks for the answer, which is no fault to log.
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        return outcome

    async def answer(self, outcome: asyncio.Future[FieldOutcome]) -> pb.FieldResult:
        """Wait until the answer may be sent, and return it.

        Raises:
            StoreError: The record could not be written.
            SessionClosedError: The session takes no more fields.
        """
        folded = await asyncio.shield(outcome)
        if folded.durable is not None:
            await asyncio.shield(asyncio.wrap_future(folded.durable))
            if folded.folded_s:
                add_timings(folded.message, {"commit": time.monotonic() - folded.folded_s})
        return folded.message


def _failed(sequence: int, error: EdgeMilError) -> FieldOutcome:
    """Return the answer to a field that could not be processed; its number may be sent again."""
    return FieldOutcome(pb.FieldResult(sequence=sequence, error=to_field_error(error)))


def _decode(assembly: FrameAssembly) -> DecodedField:
    began = time.monotonic()
    crc = identity(assembly.header, check_payload(assembly.header, assembly.payload))
    frame = decode_frame(assembly.header, assembly.payload)
    return DecodedField(frame, crc, time.monotonic() - began)


def _fold(
    live: LiveSession, assembly: FrameAssembly, decoding: Future[DecodedField], received: float
) -> FieldOutcome:
    """Fold one field, or answer it from the store; runs on the session's worker."""
    sequence, session = assembly.header.sequence, live.session
    try:
        decoded = decoding.result()
        before = session.replay(sequence, decoded.crc)
        if before is None:
            queued = time.monotonic() - received - decoded.seconds
            result, durable = session.submit(
                sequence,
                decoded.frame,
                payload_crc=decoded.crc,
                replaces=assembly.header.replaces_sequence,
            )
        else:
            # The first copy may still be on its way to the disk: its commit is waited for.
            replay = pb.FieldResult.FromString(before.answer)
            replay.replayed = True
            return FieldOutcome(replay, before.durable)
    except ENDS_STREAM:
        raise
    except EdgeMilError as error:
        return _failed(sequence, error)
    message = encode_result(result)
    add_timings(
        message,
        {
            "receive": received - assembly.started,
            "queue": max(0.0, queued),
            "decode": decoded.seconds,
        },
    )
    score = message.score

    def publish(future: Future[None]) -> None:
        error = future.exception()
        if error is None:
            live.publish_soon(score)
        elif isinstance(error, StoreError):
            live.fail_soon(error)

    durable.add_done_callback(publish)
    return FieldOutcome(message, durable, time.monotonic())
