"""A stream of fields that outlives the connection: what is not answered is sent again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from edge_mil.client.answers import field_error, stored_answer
from edge_mil.client.channel import Channel, error_of, link_lost, reason_of, retry_after_s
from edge_mil.client.outbox import Outbox, Outgoing
from edge_mil.client.reconnection import STREAM_IDLE, Reconnection
from edge_mil.client.stream_summary import StreamCounts, StreamSummary
from edge_mil.errors import EdgeMilError, RemoteError, ServiceUnavailableError, UsageError
from edge_mil.rpc.frames import encode_chunks, encode_header
from edge_mil.rpc.results import decode_result
from edge_mil.types import FieldResult, Frame
from edge_mil.v1 import edge_mil_pb2 as pb

WAKE_S = 0.5
"""Waits are cut into pieces, so that Ctrl-C is seen on Windows too."""


class FieldStream:
    """Sends frames and takes answers; made by `ClientSession.stream`.

    A thread of its own reads the answers and reconnects; a thread of gRPC takes what is to be sent.
    """

    def __init__(
        self,
        channel: Channel,
        session_id: str,
        *,
        live: bool,
        takeover: bool,
        on_result: Callable[[FieldResult, Frame], None] | None,
        on_error: Callable[[RemoteError, Frame], None] | None,
        on_disconnected: Callable[[str], None] | None,
        on_resumed: Callable[[], None] | None,
        give_up_after_s: float,
    ) -> None:
        self._channel, self._session_id = channel, session_id
        self._live, self._takeover = live, takeover
        self._on_result, self._on_error = on_result, on_error
        self._on_disconnected, self._on_resumed = on_disconnected, on_resumed
        self._give_up_after_s = give_up_after_s
        self._changed = threading.Condition()
        self._outbox = Outbox()
        self._counts = StreamCounts()
        self._epoch = 0
        """Counts connections: a sending thread of an earlier one ends itself."""
        self._closing = self._stopped = self._away = False
        self._failure: BaseException | None = None
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="edge-mil-stream", daemon=True)
        self._thread.start()

    def send(self, frame: Frame) -> None:
        """Hand in a frame; waits while the service is behind or away, unless the stream is live.

        Raises:
            ServiceUnavailableError: The service stayed away for too long.
            RemoteError: It refuses the stream.
        """
        with self._changed:
            if self._closing:
                raise UsageError("The stream was finished; open another to send more.")
            if self._live:
                self._outbox.push_latest(frame)
            else:
                self._wait(lambda: self._outbox.has_room)
                self._outbox.put(frame)
            self._check()
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until everything handed in is answered.

        Raises:
            ServiceUnavailableError: The service stayed away for too long.
            RemoteError: It refuses the stream.
        """
        with self._changed:
            self._wait(lambda: self._outbox.empty)

    def finish(self) -> StreamSummary:
        """Wait for all answers, end the stream and return its summary; again it is the same.

        Raises:
            ServiceUnavailableError: The service stayed away for too long.
            RemoteError: It refuses the stream.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._wait(lambda: self._stopped)
        return self.summary()

    def summary(self) -> StreamSummary:
        """Return what the stream did so far."""
        with self._changed:
            return self._counts.summary(self._outbox.dropped)

    def abandon(self) -> None:
        """End the stream at once; the session can be resumed."""
        with self._changed:
            self._closing = self._stopped = True
            self._epoch += 1
            if self._call is not None:
                self._call.cancel()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> FieldStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self.finish()
            finally:
                self.abandon()
        else:
            self.abandon()

    def _wait(self, done: Callable[[], bool]) -> None:
        while not (done() or self._failure):
            self._changed.wait(WAKE_S)
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # The stream's own thread

    def _run(self) -> None:
        try:
            self._keep_streaming()
        # Also what a caller's function raises: it must reach the caller's thread, not be lost.
        except BaseException as error:
            with self._changed:
                self._failure = error
        finally:
            with self._changed:
                self._stopped = True
                self._epoch += 1
                self._changed.notify_all()

    def _keep_streaming(self) -> None:
        reconnection = Reconnection(self._give_up_after_s)
        while True:
            error, asked_s = self._stream_once()
            if error is None:
                return
            if self._connected:
                reconnection.connected()
            if isinstance(error, RemoteError) and error.reason == STREAM_IDLE:
                if self._wait_for_work():
                    continue
                return
            pause = reconnection.pause_s(error, asked_s, time.monotonic())
            if not self._away:
                self._away = True
                self._counts.reconnects += 1
                if self._on_disconnected is not None:
                    self._on_disconnected(str(error))
            with self._changed:
                if self._changed.wait_for(lambda: self._stopped, pause):
                    return

    def _wait_for_work(self) -> bool:
        """Wait until there is something to send again; return False where the stream is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._closing or not self._outbox.empty)
            return not self._stopped and not self._outbox.empty

    def _stream_once(self) -> tuple[EdgeMilError | None, float]:
        """Stream until the end, or until the link breaks.

        Returns:
            Why it broke, None at the end, and the pause in seconds that the service asks for.

        Raises:
            RemoteError: The service refuses, and would again.
        """
        self._connected = False
        with self._changed:
            if self._stopped:
                return None, 0.0
            self._epoch += 1
            epoch = self._epoch
            self._outbox.disconnect()
            call: Any = self._channel.sessions.StreamFields(self._requests(epoch))
            self._call = call
        try:
            for response in call:
                self._receive(response)
            with self._changed:
                if self._stopped or (self._closing and self._outbox.empty):
                    return None, 0.0
            return ServiceUnavailableError(
                f"The service at {self._channel.address} ended the stream before all was answered."
            ), 0.0
        except grpc.RpcError as error:
            with self._changed:
                if self._stopped:
                    return None, 0.0
            pause = retry_after_s(error)
            again = link_lost(error) or pause is not None or reason_of(error) == "SESSION_BUSY"
            if not again:
                raise error_of(error, self._channel.address) from error
            return error_of(error, self._channel.address), pause or 0.0
        finally:
            with self._changed:
                self._epoch += 1
                self._changed.notify_all()
            call.cancel()

    def _receive(self, response: pb.StreamFieldsResponse) -> None:
        kind = response.WhichOneof("body")
        if kind == "ready":
            self._ready(response)
        elif kind == "result":
            self._answer(response.result, response.header_limit)

    def _ready(self, response: pb.StreamFieldsResponse) -> None:
        session = response.ready.session
        self._connected = True
        # A client that was connected once may take its own session back before the service
        # notices that the link is lost.
        self._takeover = True
        with self._changed:
            known = self._outbox.connect(
                response.header_limit, session.durable_sequence, tuple(session.durable_beyond)
            )
            self._changed.notify_all()
        if self._away:
            self._away = False
            if self._on_resumed is not None:
                self._on_resumed()
        for outgoing in known:
            # Its answer was lost with the link; the service has it, so it is asked for.
            stored = stored_answer(
                self._channel, self._session_id, outgoing.sequence, self._give_up_after_s
            )
            self._deliver(stored, outgoing, replayed=True)

    def _answer(self, result: pb.FieldResult, limit: int) -> None:
        failed = result.HasField("error")
        with self._changed:
            outgoing = self._outbox.answered(result.sequence, durable=not failed)
            self._outbox.allow(limit)
        if outgoing is not None and failed:
            error = field_error(result.error)
            with self._changed:
                self._counts.errors.append(str(error))
            if self._on_error is not None:
                self._on_error(error, outgoing.frame)
        elif outgoing is not None:
            self._deliver(decode_result(result), outgoing, replayed=result.replayed)
        with self._changed:
            self._changed.notify_all()

    def _deliver(self, result: FieldResult, outgoing: Outgoing, *, replayed: bool) -> None:
        with self._changed:
            self._counts.add(result, replayed=replayed)
        if self._on_result is not None:
            self._on_result(result, outgoing.frame)

    # gRPC's sending thread

    def _requests(self, epoch: int) -> Iterator[pb.StreamFieldsRequest]:
        start = pb.StreamStart(session_id=self._session_id, takeover=self._takeover)
        yield pb.StreamFieldsRequest(start=start)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        epoch != self._epoch
                        or self._outbox.sendable
                        or (self._closing and self._outbox.empty)
                    )
                )
                if epoch != self._epoch or not self._outbox.sendable:
                    return
                outgoing = self._outbox.next()
                self._changed.notify_all()
            header = encode_header(
                outgoing.frame, outgoing.sequence, dropped_before=outgoing.dropped_before
            )
            yield pb.StreamFieldsRequest(header=header)
            for chunk in encode_chunks(outgoing.frame.pixels):
                if epoch != self._epoch:
                    return
                yield pb.StreamFieldsRequest(chunk=chunk)
