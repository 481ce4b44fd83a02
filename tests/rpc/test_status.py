"""Every error has one status and one reason."""

from __future__ import annotations

import re

import grpc
import pytest
from google.rpc import error_details_pb2

from edge_mil import errors
from edge_mil.errors import EdgeMilError, RemoteError
from edge_mil.rpc import status

ALL = EdgeMilError.__subclasses__()


def make(kind: type[EdgeMilError], **details: object) -> EdgeMilError:
    if kind is errors.EmptyBagError:
        return kind()
    if kind is RemoteError:
        return RemoteError("It went wrong.", "INTERNAL", **details)
    return kind("It went wrong.", **details)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_a_reason(kind: type[EdgeMilError]) -> None:
    code, reason = status.STATUS_OF[kind]
    assert code is not grpc.StatusCode.OK
    assert re.fullmatch(r"[A-Z][A-Z_]+", reason)
    made = status.to_status(make(kind))
    info = error_details_pb2.ErrorInfo()
    assert made.details[0].Unpack(info)
    assert (made.code, info.reason, info.domain) == (code.value[0], reason, "edge-mil")


def test_reasons_are_not_shared() -> None:
    reasons = [reason for _, reason in status.STATUS_OF.values()]
    assert len(set(reasons)) == len(reasons)


def test_numbers_travel_as_metadata_and_the_reason_does_not() -> None:
    error = errors.PixelSizeError("No.", reason="OPTICS_MISMATCH", field="optics", mpp=0.5)
    info = error_details_pb2.ErrorInfo()
    status.to_status(error).details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("OPTICS_MISMATCH", {"mpp": "0.5"})


def test_what_may_be_tried_again_says_when() -> None:
    error = errors.BundleNotReadyError("Wait.", retry_after_s=2.5)
    retry = error_details_pb2.RetryInfo()
    assert status.to_status(error).details[-1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert (status.RETRY_KEY, "2500") in status.trailing_metadata(error)


def test_a_broken_state_says_which() -> None:
    failure = error_details_pb2.PreconditionFailure()
    made = status.to_status(errors.SessionClosedError("Closed."))
    assert made.details[1].Unpack(failure)
    assert failure.violations[0].type == "SESSION_CLOSED"


def test_a_field_error_has_the_same_reason_as_a_call() -> None:
    message = status.to_field_error(errors.FrameError("No.", reason="CRC_MISMATCH", field="x"))
    assert (message.code, message.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        "CRC_MISMATCH",
    )
