"""What the servicers of the fake service share: sessions by id, scripted errors, statuses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from edge_mil.errors import EdgeMilError, SessionNotFoundError, UnknownBundleError
from edge_mil.rpc import status
from edge_mil.testing.service_session import FakeSession
from edge_mil.testing.service_stream import LinkLostError

if TYPE_CHECKING:
    from edge_mil.testing.service import FakeService

Method = TypeVar("Method", bound=Callable[..., Any])


def answered(method: Method) -> Method:
    """Answer a call that returns one message; what it raises becomes its status."""

    @functools.wraps(method)
    def call(self: FakeServicer, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            self.service.raise_scripted(method.__name__)
            with self.service.changed:
                response = method(self, request, context)
                self.service.changed.notify_all()
        except EdgeMilError as error:
            abort(context, error)
        return response

    return call  # type: ignore[return-value]


def streamed(method: Method) -> Method:
    """Answer a call that returns a stream of messages."""

    @functools.wraps(method)
    def call(self: FakeServicer, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            self.service.raise_scripted(method.__name__)
            yield from method(self, request, context)
        except EdgeMilError as error:
            abort(context, error)
        except LinkLostError:
            context.abort(grpc.StatusCode.UNAVAILABLE, "The connection was lost.")

    return call  # type: ignore[return-value]


def abort(context: grpc.ServicerContext, error: EdgeMilError) -> None:
    """End a call with an error's code, sentence and reason, as the real service does."""
    context.set_trailing_metadata(status.trailing_metadata(error))
    context.abort(status.code_of(error), str(error))


class FakeServicer:
    """What all servicers of the fake service share."""

    def __init__(self, service: FakeService) -> None:
        self.service = service

    def session(self, session_id: str) -> FakeSession:
        """Return a session.

        Raises:
            SessionNotFoundError: There is none of that id.
        """
        if session_id not in self.service.sessions:
            raise SessionNotFoundError(f"There is no session {session_id[:40]!r}.")
        return self.service.sessions[session_id]

    def check_bundle(self, name: str, digest: str = "") -> None:
        """Check that a client means the one bundle of this service.

        Raises:
            UnknownBundleError: It means another one.
        """
        model = self.service.model
        if name not in ("", model.bundle_id) or digest not in ("", model.bundle_digest):
            raise UnknownBundleError(
                f"This service has no bundle {name!r}; it has {model.bundle_id}."
            )
