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
from edge_mil.rpc.frames import check_payload, identity
from edge_mil.rpc.image_codecs import decode_frame
from edge_mil.rpc.results import add_timings, encode_result
from edge_mil.rpc.status import to_field_error
from edge_mil.service.sessions.frame_assembly import Assembly
from edge_mil.service.sessions.live_session import LiveSession
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb

ENDS_STREAM = (StoreError, SessionClosedError, SessionStateError)
"""Errors of the session, not of the field: no later field would fare better."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A field's picture, and the CRC that tells it from another under the same number."""

    frame: Frame
    crc: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FieldOutcome:
    """An answer, and when it may be sent.

    Attributes:
        message: The answer.
        durable: Done when its record is on the disk; None where there is no record.
        folded: When the fold ended, seconds of the monotonic clock; 0 for a replay.
    """

    message: pb.FieldResult
    durable: Future[None] | None = None
    folded: float = 0.0


class FieldWorker:
    """Runs fields through decode and fold, in the order in which they are handed in."""

    def __init__(self, decoders: ThreadPoolExecutor) -> None:
        self._decoders = decoders

    def start(self, hosted: LiveSession, assembly: Assembly) -> asyncio.Future[FieldOutcome]:
        """Start one whole field; the answer comes in its own time."""
        if assembly.refused is not None:
            refused: asyncio.Future[FieldOutcome] = asyncio.get_running_loop().create_future()
            refused.set_result(failed(assembly.header.sequence, assembly.refused))
            return refused
        received = time.monotonic()
        decoded = self._decoders.submit(_decode, assembly)
        folding = asyncio.wrap_future(
            hosted.worker.submit(_fold, hosted, assembly, decoded, received)
        )
        # When the stream dies nobody asks for the answer, which is no fault to log.
        folding.add_done_callback(lambda done: done.cancelled() or done.exception())
        return folding

    async def answer(self, folding: asyncio.Future[FieldOutcome]) -> pb.FieldResult:
        """Wait until the answer may be sent, and return it.

        Raises:
            StoreError: The record could not be written.
            SessionClosedError: The session takes no more fields.
        """
        folded = await asyncio.shield(folding)
        if folded.durable is not None:
            await asyncio.shield(asyncio.wrap_future(folded.durable))
            if folded.folded:
                add_timings(folded.message, {"commit": time.monotonic() - folded.folded})
        return folded.message


def failed(sequence: int, error: EdgeMilError) -> FieldOutcome:
    """Return the answer to a field that could not be judged; its number may be sent again."""
    return FieldOutcome(pb.FieldResult(sequence=sequence, error=to_field_error(error)))


def _decode(assembly: Assembly) -> Decoded:
    began = time.monotonic()
    crc = identity(assembly.header, check_payload(assembly.header, assembly.payload))
    frame = decode_frame(assembly.header, assembly.payload)
    return Decoded(frame, crc, time.monotonic() - began)


def _fold(
    hosted: LiveSession, assembly: Assembly, decoding: Future[Decoded], received: float
) -> FieldOutcome:
    """Fold one field; runs on the session's worker."""
    sequence, session = assembly.header.sequence, hosted.session
    try:
        decoded = decoding.result()
        before = session.replay(sequence, decoded.crc)
        if before is None:
            queued = time.monotonic() - received - decoded.seconds
            result, durable = session.submit(sequence, decoded.frame, payload_crc=decoded.crc)
        else:
            # The first copy may still be on its way to the disk: its commit is waited for.
            replay = pb.FieldResult.FromString(before.answer)
            replay.replayed = True
            return FieldOutcome(replay, before.durable)
    except ENDS_STREAM:
        raise
    except EdgeMilError as error:
        return failed(sequence, error)
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

    def settle(future: Future[None]) -> None:
        error = future.exception()
        if error is None:
            hosted.publish_soon(score)
        elif isinstance(error, StoreError):
            hosted.fail_soon(error)

    durable.add_done_callback(settle)
    return FieldOutcome(message, durable, time.monotonic())
