"""Errors of servicers as statuses: a foreseen one as its own, any other as INTERNAL and a log."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc

from edge_mil.errors import EdgeMilError
from edge_mil.rpc import status

Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")

LOG = logging.getLogger("edge_mil.service")
DETAILS_KEY = "grpc-status-details-bin"
"""Where gRPC carries a `google.rpc.Status`."""


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: EdgeMilError) -> NoReturn:
    """End the call with the error's status, its details and its reason."""
    rich = status.to_status(error)
    await context.abort(
        status.code_of(error),
        status.sentence_of(error),
        ((DETAILS_KEY, rich.SerializeToString()), *status.trailing_metadata(error)),
    )
    raise AssertionError  # abort raises, which its annotation does not say


def unary(
    method: Callable[[Servicer, Request, Any], Awaitable[Response]],
) -> Callable[[Servicer, Request, Any], Awaitable[Response]]:
    """Wrap a method that answers once."""

    @functools.wraps(method)
    async def call(self: Servicer, request: Request, context: Any) -> Response:
        try:
            return await method(self, request, context)
        except EdgeMilError as error:
            await abort(context, error)
        except Exception:
            LOG.exception("%s failed", method.__name__)
            await context.abort(
                grpc.StatusCode.INTERNAL, status.INTERNAL_MESSAGE, status.INTERNAL_METADATA
            )
            raise

    return call


def streaming(
    method: Callable[[Servicer, Request, Any], AsyncIterator[Response]],
) -> Callable[[Servicer, Request, Any], AsyncIterator[Response]]:
    """Wrap a method that answers with a stream."""

    @functools.wraps(method)
    async def call(self: Servicer, request: Request, context: Any) -> AsyncIterator[Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except EdgeMilError as error:
            await abort(context, error)
        except Exception:
            LOG.exception("%s failed", method.__name__)
            await context.abort(
                grpc.StatusCode.INTERNAL, status.INTERNAL_MESSAGE, status.INTERNAL_METADATA
            )
            raise

    return call
