"""One stream of fields to the fake service: messages in, one answer for each field out."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_mil.errors import CreditError, EdgeMilError, ProtocolError
from edge_mil.rpc.frame_assembly import FrameAssembly
from edge_mil.rpc.status import to_field_error
from edge_mil.testing.service_session import FakeSession
from edge_mil.v1 import edge_mil_pb2 as pb

if TYPE_CHECKING:
    from edge_mil.testing.service import FakeService

END = object()
"""Put behind the last message of a client."""


class LinkLostError(Exception):
    """The stream is to break as if the network had failed: a status without a reason."""


class FakeStream:
    """Takes a client's messages from a queue, which also brings what ends the stream."""

    def __init__(self, service: FakeService, session: FakeSession) -> None:
        self._service, self._session = service, session
        self._limit = service.credits
        self._assembly: FrameAssembly | None = None
        self.messages: queue.SimpleQueue[object] = queue.SimpleQueue()

    def responses(
        self, requests: Iterator[pb.StreamFieldsRequest]
    ) -> Iterator[pb.StreamFieldsResponse]:
        """Yield the answers until the client ends its half.

        Raises:
            EdgeMilError: The client broke a rule, or lost the session.
            LinkLostError: `FakeService.drop_streams` was called.
        """
        ready = pb.StreamReady(session=self._session.message())
        yield pb.StreamFieldsResponse(header_limit=self._limit, ready=ready)
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        while (message := self.messages.get()) is not END:
            if isinstance(message, Exception):
                raise message
            assert isinstance(message, pb.StreamFieldsRequest)
            result = self._take(message)
            if result is not None:
                self._limit += 1
                yield pb.StreamFieldsResponse(header_limit=self._limit, result=result)

    def _read(self, requests: Iterator[pb.StreamFieldsRequest]) -> None:
        """Hand the client's messages on; count its headers as they come."""
        headers = 0
        # gRPC raises an Exception of no other type when the client goes away.
        with contextlib.suppress(Exception):
            for request in requests:
                headers += request.HasField("header")
                if headers > self._limit:
                    message = f"Header {headers} came and {self._limit} are allowed."
                    self.messages.put(CreditError(message))
                    return
                self.messages.put(request)
        self.messages.put(END)

    def _take(self, request: pb.StreamFieldsRequest) -> pb.FieldResult | None:
        """Take one message; return the answer of a field that is complete, or was aborted."""
        kind, assembly = request.WhichOneof("body"), self._assembly
        if kind == "header" and assembly is None:
            self._assembly = FrameAssembly(request.header)
        elif kind == "chunk" and assembly is not None:
            assembly.add(request.chunk)
        elif kind == "abort" and assembly and assembly.header.sequence == request.abort.sequence:
            self._assembly = None
            return pb.FieldResult(sequence=request.abort.sequence, verdict=pb.VERDICT_DROPPED)
        else:
            raise ProtocolError(f"The message {kind or 'without a body'} is not allowed here.")
        if self._assembly is None or not self._assembly.complete:
            return None
        complete, self._assembly = self._assembly, None
        return self._answer(complete)

    def _answer(self, assembly: FrameAssembly) -> pb.FieldResult:
        try:
            if assembly.rejected is not None:
                raise assembly.rejected
            with self._service.changed:
                result = self._session.answer(assembly.header, assembly.payload)
                self._service.changed.notify_all()
        except EdgeMilError as error:
            return pb.FieldResult(sequence=assembly.header.sequence, error=to_field_error(error))
        return result
