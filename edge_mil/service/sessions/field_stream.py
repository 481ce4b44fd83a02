"""StreamFields: fields in, one answer for each in order, credits; `serving.md`, section 2.1."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Literal, TypeVar

from edge_mil.errors import CreditError, EdgeMilError, ProtocolError, ServiceUnavailableError
from edge_mil.service.sessions.field_worker import FieldOutcome, FieldWorker
from edge_mil.service.sessions.frame_assembly import Assembly
from edge_mil.service.sessions.live_session import LiveSession, WriteLease
from edge_mil.v1 import edge_mil_pb2 as pb

Result = TypeVar("Result")

CREDITS = 3
"""Fields under way on one stream: two fill the pipe, more than four only add latency."""


class FieldStream:
    """One stream of one client, from its start message to its end.

    The reader only assembles and hands on, so that it always sees what the client does; answers
    are awaited in order beside it. Neither owns a field: those live on when the stream dies.
    """

    def __init__(self, hosted: LiveSession, writer: WriteLease, folder: FieldWorker) -> None:
        self._hosted, self._writer, self._folder = hosted, writer, folder
        self._under_way: Assembly | None = None
        self._headers, self._limit = 0, CREDITS
        self._foldings: asyncio.Queue[asyncio.Future[FieldOutcome] | None] = asyncio.Queue()

    async def responses(
        self, requests: AsyncIterator[pb.StreamFieldsRequest], ready: pb.StreamReady
    ) -> AsyncIterator[pb.StreamFieldsResponse]:
        """Yield the answers until the client ends its half and has them all.

        Raises:
            ProtocolError: The client broke the rules.
            CreditError: It sent more fields than it had credit for.
            EdgeMilError: The session takes no more fields, or another stream took it.
        """
        yield pb.StreamFieldsResponse(header_limit=self._limit, ready=ready)
        reader = asyncio.ensure_future(self._read(requests))
        lost = asyncio.ensure_future(self._writer.lost.wait())
        try:
            while (folding := await self._first(self._foldings.get(), reader, lost)) is not None:
                result = await self._first(self._folder.answer(folding), reader, lost)
                self._limit += 1
                yield pb.StreamFieldsResponse(header_limit=self._limit, result=result)
        except ServiceUnavailableError as error:
            notice = pb.ServerNotice(code="DRAINING", text=str(error))
            yield pb.StreamFieldsResponse(header_limit=self._limit, notice=notice)
            raise
        finally:
            for task in (reader, lost):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, EdgeMilError):
                    await task

    async def _first(
        self,
        wanted: Awaitable[Result],
        reader: asyncio.Future[None],
        lost: asyncio.Task[Literal[True]],
    ) -> Result:
        """Return what is awaited, unless the client breaks a rule or loses the session before."""
        task = asyncio.ensure_future(wanted)
        watching: set[asyncio.Future[Any]] = {task, lost}
        if not reader.done():
            watching.add(reader)
        try:
            while not task.done():
                await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
                if lost.done() and self._writer.reason is not None:
                    raise self._writer.reason
                if reader.done():
                    watching.discard(reader)
                    reader.result()
            return task.result()
        finally:
            task.cancel()

    async def _read(self, requests: AsyncIterator[pb.StreamFieldsRequest]) -> None:
        async for request in requests:
            self._take(request)
        # A killed client looks just like this: the stream is over, and the slide may not be.
        self._hosted.detach(self._writer)
        self._foldings.put_nowait(None)

    def _take(self, request: pb.StreamFieldsRequest) -> None:
        kind = request.WhichOneof("body")
        if kind == "header":
            self._begin(request.header)
        elif kind == "chunk":
            if self._under_way is None:
                raise ProtocolError("A chunk came before any header; send the header first.")
            self._under_way.add(request.chunk)
        elif kind == "abort":
            self._abort(request.abort)
        elif kind == "start":
            raise ProtocolError("A second start came; a stream has one, as its first message.")
        else:
            raise ProtocolError("An empty message came; send a header, a chunk or an abort.")
        if self._under_way is not None and self._under_way.complete:
            self._foldings.put_nowait(self._folder.start(self._hosted, self._under_way))
            self._under_way = None

    def _begin(self, header: pb.FieldHeader) -> None:
        if self._under_way is not None:
            raise ProtocolError(
                f"The header of field {header.sequence} came while field "
                f"{self._under_way.header.sequence} is under way; send its chunks, or abort it."
            )
        self._headers += 1
        if self._headers > self._limit:
            raise CreditError(
                f"Header {self._headers} came on this stream and {self._limit} are allowed; wait "
                "for answers, whose header_limit says how many may be sent.",
                headers=self._headers,
                header_limit=self._limit,
            )
        self._under_way = Assembly(header)

    def _abort(self, abort: pb.FieldAbort) -> None:
        under_way = self._under_way
        if under_way is None or under_way.header.sequence != abort.sequence:
            raise ProtocolError(
                f"Field {abort.sequence} is aborted and is not under way; only the field whose "
                "chunks are being sent can be."
            )
        self._under_way = None
        dropped: asyncio.Future[FieldOutcome] = asyncio.get_running_loop().create_future()
        dropped.set_result(
            FieldOutcome(pb.FieldResult(sequence=abort.sequence, verdict=pb.VERDICT_DROPPED))
        )
        self._foldings.put_nowait(dropped)
