"""What every call passes first: it is admitted, and its messages can be read."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from edge_mil.errors import EdgeMilError
from edge_mil.service.admission import Admission
from edge_mil.service.handlers import abort
from edge_mil.service.unreadable import (
    ReadableMessages,
    Unreadable,
    UnreadableLog,
    lenient,
    unreadable_error,
)


class EntryInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # not at run time
    """Wraps the handler of each call, of whichever service."""

    def __init__(self, admission: Admission | None = None) -> None:
        self._admission = admission or Admission()
        self._log = UnreadableLog()

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of a call with its checks; None for a method that nobody serves."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            self._wrapped(method, handler, getattr(handler, kind)),
            request_deserializer=lenient(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _wrapped(
        self, method: str, handler: Any, behaviour: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        def check(request: Any) -> None:
            if isinstance(request, Unreadable):
                self._log.note(method)
                raise unreadable_error(method, request)

        def checked(request: Any) -> Any:
            if handler.request_streaming:
                return ReadableMessages(request, check)
            check(request)
            return request

        streams = handler.request_streaming or handler.response_streaming

        async def answer(request: Any, context: Any) -> Any:
            try:
                with self._admission.admitted(method, streams=streams):
                    return await behaviour(checked(request), context)
            except EdgeMilError as error:
                await abort(context, error)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                with self._admission.admitted(method, streams=streams):
                    async for response in behaviour(checked(request), context):
                        yield response
            except EdgeMilError as error:
                await abort(context, error)

        # A handler that streams may also write its answers itself, as the health service does.
        return stream if inspect.isasyncgenfunction(behaviour) else answer
