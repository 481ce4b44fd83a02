"""StreamFields: fields come in, one answer to each goes out in order, under credits.

The rules are in `docs/protocol.md` and `docs/design/serving-and-durability.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Literal, TypeVar

from edge_mil.errors import CreditError, EdgeMilError, ProtocolError, ServiceUnavailableError
from edge_mil.rpc.frame_assembly import FrameAssembly
from edge_mil.service.byte_budget import ByteBudget, Loan
from edge_mil.service.limits import CREDITS
from edge_mil.service.sessions.field_worker import FieldOutcome, FieldWorker
from edge_mil.service.sessions.live_session import LiveSession, WriteLease
from edge_mil.service.silence import Silence
from edge_mil.v1 import edge_mil_pb2 as pb

Result = TypeVar("Result")


class FieldStream:
    """One stream of one client, from its start message to its end.

    One task reads messages, assembles fields and hands them to the worker, so that it always sees
    what the client does; answers are awaited in order beside it. Fields belong to neither: they
    are processed to their end when the stream breaks.
    """

    def __init__(
        self, live: LiveSession, lease: WriteLease, worker: FieldWorker, budget: ByteBudget
    ) -> None:
        self._live, self._lease, self._worker, self._budget = live, lease, worker, budget
        self._assembly: FrameAssembly | None = None
        self._loan: Loan | None = None
        self._silence = Silence()
        self._headers, self._limit = 0, CREDITS
        self._outcomes: asyncio.Queue[asyncio.Future[FieldOutcome] | None] = asyncio.Queue()

    async def responses(
        self, requests: AsyncIterator[pb.StreamFieldsRequest], ready: pb.StreamReady
    ) -> AsyncIterator[pb.StreamFieldsResponse]:
        """Yield the answers until the client ends its half and has them all.

        Raises:
            ProtocolError: The client broke the rules.
            CreditError: It sent more fields than it had credit for.
            ClientSilentError: It left a field half sent, or sent none for long.
            EdgeMilError: The session takes no more fields, or another stream took it.
        """
        yield pb.StreamFieldsResponse(header_limit=self._limit, ready=ready)
        reader = asyncio.ensure_future(self._read(requests))
        lost = asyncio.ensure_future(self._lease.lost.wait())
        silent = asyncio.ensure_future(self._silence.watch())
        watched: tuple[asyncio.Future[Any], ...] = (reader, silent)
        try:
            while (outcome := await self._first(self._outcomes.get(), watched, lost)) is not None:
                result = await self._first(self._worker.answer(outcome), watched, lost)
                self._limit += 1
                self._silence.under_way -= 1
                yield pb.StreamFieldsResponse(header_limit=self._limit, result=result)
        except ServiceUnavailableError as error:
            notice = pb.ServerNotice(code="DRAINING", text=str(error))
            yield pb.StreamFieldsResponse(header_limit=self._limit, notice=notice)
            raise
        finally:
            for task in (reader, lost, silent):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, EdgeMilError):
                    await task
            self._forget_assembly()

    async def _first(
        self,
        awaited: Awaitable[Result],
        others: tuple[asyncio.Future[Any], ...],
        lost: asyncio.Task[Literal[True]],
    ) -> Result:
        """Return what is awaited, unless the client breaks a rule or loses the session before."""
        task = asyncio.ensure_future(awaited)
        watched: set[asyncio.Future[Any]] = {task, lost, *others}
        try:
            while True:
                # Either may have happened while the answer before was being sent.
                if lost.done() and self._lease.reason is not None:
                    raise self._lease.reason
                for other in others:
                    if other.done():
                        watched.discard(other)
                        other.result()
                if task.done():
                    return task.result()
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()

    async def _read(self, requests: AsyncIterator[pb.StreamFieldsRequest]) -> None:
        async for request in requests:
            self._silence.hear()
            await self._take(request)
        # A killed client looks just like this: the stream is over, and the slide may not be.
        self._live.detach(self._lease)
        self._silence.under_way += 1  # the client has ended its half and only waits
        self._outcomes.put_nowait(None)

    async def _take(self, request: pb.StreamFieldsRequest) -> None:
        kind = request.WhichOneof("body")
        if kind == "header":
            await self._begin(request.header)
        elif kind == "chunk":
            if self._assembly is None:
                raise ProtocolError("A chunk came before any header; send the header first.")
            self._assembly.add(request.chunk)
        elif kind == "abort":
            self._abort(request.abort)
        elif kind == "start":
            raise ProtocolError("A second start came; a stream has one, as its first message.")
        else:
            raise ProtocolError("An empty message came; send a header, a chunk or an abort.")
        if self._assembly is not None and self._assembly.complete:
            outcome = self._worker.start(self._live, self._assembly)
            assert self._loan is not None
            outcome.add_done_callback(self._loan.give_back)
            self._await_answer(outcome)

    async def _begin(self, header: pb.FieldHeader) -> None:
        if self._assembly is not None:
            raise ProtocolError(
                f"The header of field {header.sequence} came while field "
                f"{self._assembly.header.sequence} is under way; send its chunks, or abort it."
            )
        self._headers += 1
        if self._headers > self._limit:
            raise CreditError(
                f"Header {self._headers} came on this stream and {self._limit} are allowed; wait "
                "for answers, whose header_limit says how many may be sent.",
                headers=self._headers,
                header_limit=self._limit,
            )
        assembly = FrameAssembly(header)
        self._silence.under_way += 1
        try:
            # Where the service is full nothing more is read, and gRPC holds the client back.
            self._loan = await self._budget.lend(header, self._live.room)
        finally:
            self._silence.under_way -= 1
        assembly.started = time.monotonic()
        self._assembly = self._silence.assembly = assembly

    def _await_answer(self, outcome: asyncio.Future[FieldOutcome]) -> None:
        self._silence.under_way += 1
        self._assembly = self._silence.assembly = self._loan = None
        self._outcomes.put_nowait(outcome)

    def _abort(self, abort: pb.FieldAbort) -> None:
        assembly = self._assembly
        if assembly is None or assembly.header.sequence != abort.sequence:
            raise ProtocolError(
                f"Field {abort.sequence} is aborted and is not under way; only the field whose "
                "chunks are being sent can be."
            )
        self._forget_assembly()
        dropped: asyncio.Future[FieldOutcome] = asyncio.get_running_loop().create_future()
        dropped.set_result(
            FieldOutcome(pb.FieldResult(sequence=abort.sequence, verdict=pb.VERDICT_DROPPED))
        )
        self._await_answer(dropped)

    def _forget_assembly(self) -> None:
        if self._loan is not None:
            self._loan.give_back()
        self._assembly = self._silence.assembly = self._loan = None
