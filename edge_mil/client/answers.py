"""Answers to single fields: the error of one that could not be processed, and stored answers."""

from __future__ import annotations

import grpc

from edge_mil.client.channel import Channel
from edge_mil.client.decoding import field_info
from edge_mil.errors import RemoteDamagedDataError, RemoteError
from edge_mil.rpc.status import remote_error
from edge_mil.types import FieldResult
from edge_mil.v1 import edge_mil_pb2 as pb


def field_error(message: pb.FieldError) -> RemoteError:
    """Return the error of one field; the stream goes on after it."""
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    return remote_error(message.message, codes.get(message.code, "UNKNOWN"), message.reason)


def stored_answer(
    channel: Channel, session_id: str, sequence: int, connect_s: float
) -> FieldResult:
    """Return the stored answer of a field, usually by one small page.

    Args:
        channel: The service.
        session_id: The session.
        sequence: The field, which the session holds.
        connect_s: How long to try to reach the service.

    Raises:
        ServiceUnavailableError: The service cannot be reached.
        RemoteDamagedDataError: It has no such field.
    """
    request = pb.ListFieldsRequest(session_id=session_id, page_size=1, page_token=str(sequence - 1))
    while True:
        page = channel.call(channel.views.ListFields, request, connect_s=connect_s)
        for message in page.fields:
            if message.sequence == sequence:
                return field_info(message).result
        if not page.next_page_token:
            raise RemoteDamagedDataError(
                f"The service says that field {sequence} is durable, and does not list it.",
                "DATA_LOSS",
            )
        request.page_token, request.page_size = page.next_page_token, 0
