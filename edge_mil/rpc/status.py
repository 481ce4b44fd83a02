"""Errors as gRPC statuses: the only place that turns one into the other.

A status carries one `ErrorInfo`, and what its code calls for (`serving.md`, 2.2). The reason also
travels as trailing metadata, so that a light client needs no googleapis package to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc

from edge_mil import errors
from edge_mil.errors import EdgeMilError
from edge_mil.rpc.results import duration
from edge_mil.v1 import edge_mil_pb2 as pb

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

DOMAIN = "edge-mil"
REASON_KEY = "edge-mil-reason"
RETRY_KEY = "edge-mil-retry-after-ms"

Code = grpc.StatusCode

STATUS_OF: Mapping[type[EdgeMilError], tuple[grpc.StatusCode, str]] = MappingProxyType(
    {
        errors.BundleError: (Code.FAILED_PRECONDITION, "BUNDLE_INVALID"),
        errors.BundleVersionError: (Code.FAILED_PRECONDITION, "BUNDLE_TOO_NEW"),
        errors.BundleNotReadyError: (Code.UNAVAILABLE, "BUNDLE_NOT_READY"),
        errors.UnknownBundleError: (Code.NOT_FOUND, "BUNDLE_NOT_FOUND"),
        errors.NotThereYetError: (Code.UNIMPLEMENTED, "NOT_THERE_YET"),
        errors.DependencyError: (Code.FAILED_PRECONDITION, "PACKAGE_MISSING"),
        errors.EngineError: (Code.FAILED_PRECONDITION, "ENGINE_UNUSABLE"),
        errors.BackendLostError: (Code.INTERNAL, "BACKEND_LOST"),
        errors.InvalidFeaturesError: (Code.INVALID_ARGUMENT, "FEATURES_INVALID"),
        errors.InvalidInstancesError: (Code.INTERNAL, "INSTANCES_NOT_FINITE"),
        errors.EmptyBagError: (Code.FAILED_PRECONDITION, "BAG_EMPTY"),
        errors.PixelSizeError: (Code.INVALID_ARGUMENT, "PIXEL_SIZE_INVALID"),
        errors.PositionError: (Code.INVALID_ARGUMENT, "POSITION_INVALID"),
        errors.FrameError: (Code.INVALID_ARGUMENT, "FRAME_INVALID"),
        errors.SequenceError: (Code.INVALID_ARGUMENT, "SEQUENCE_CONFLICT"),
        errors.ProtocolError: (Code.INVALID_ARGUMENT, "PROTOCOL_VIOLATION"),
        errors.CreditError: (Code.RESOURCE_EXHAUSTED, "NO_CREDIT"),
        errors.SessionNotFoundError: (Code.NOT_FOUND, "SESSION_NOT_FOUND"),
        errors.SessionBusyError: (Code.ABORTED, "SESSION_BUSY"),
        errors.SessionFencedError: (Code.ABORTED, "FENCED"),
        errors.SessionClosedError: (Code.FAILED_PRECONDITION, "SESSION_CLOSED"),
        errors.SessionStateError: (Code.FAILED_PRECONDITION, "SESSION_STATE"),
        errors.RequestReusedError: (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
        errors.SourceError: (Code.FAILED_PRECONDITION, "SOURCE_UNREADABLE"),
        errors.ListenError: (Code.UNAVAILABLE, "LISTEN_FAILED"),
        errors.ServiceUnavailableError: (Code.UNAVAILABLE, "SERVICE_UNAVAILABLE"),
        errors.RemoteError: (Code.INTERNAL, "REMOTE"),
        errors.CalibrationError: (Code.FAILED_PRECONDITION, "CALIBRATION_UNUSABLE"),
        errors.StoreError: (Code.RESOURCE_EXHAUSTED, "STORE_FAILED"),
        errors.UsageError: (Code.INVALID_ARGUMENT, "ARGUMENT_INVALID"),
    }
)
"""Every error's status and reason; `details["reason"]`, where an error has one, is finer."""

RETRY_AFTER_S: Mapping[type[EdgeMilError], float] = MappingProxyType(
    {errors.BundleNotReadyError: 1.0, errors.StoreError: 5.0}
)
"""When to try again, where the error itself does not say."""

INTERNAL_MESSAGE = "The service failed in a way that it did not foresee; its log has the details."
INTERNAL_METADATA = ((REASON_KEY, "INTERNAL"),)


def code_of(error: EdgeMilError) -> grpc.StatusCode:
    """Return the gRPC code of an error."""
    return STATUS_OF[type(error)][0]


def reason_of(error: EdgeMilError) -> str:
    """Return the UPPER_SNAKE reason of an error."""
    return error.details.get("reason") or STATUS_OF[type(error)][1]


def retry_after_s(error: EdgeMilError) -> float | None:
    """Return when the call may be tried again, seconds; None when trying again is no use."""
    said = error.details.get("retry_after_s")
    return float(said) if said else RETRY_AFTER_S.get(type(error))


def numbers_of(error: EdgeMilError) -> dict[str, str]:
    """Return what lies behind the message, without what the status says elsewhere."""
    return {k: v for k, v in error.details.items() if k not in ("reason", "retry_after_s", "field")}


def to_status(error: EdgeMilError) -> Status:
    """Return the rich status of an error; needs the extra `device`."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.rpc import error_details_pb2, status_pb2

    code, reason = code_of(error), reason_of(error)
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=numbers_of(error))
    ]
    if code is Code.INVALID_ARGUMENT:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(
            field=error.details.get("field", ""), description=str(error), reason=reason
        )
        details.append(bad)
    if code is Code.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(type=reason, subject=DOMAIN, description=str(error))
        details.append(failure)
    if (seconds := retry_after_s(error)) is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(seconds)))
    packed = []
    for detail in details:
        box = AnyMessage()
        box.Pack(detail)
        packed.append(box)
    return status_pb2.Status(code=code.value[0], message=str(error), details=packed)


def trailing_metadata(error: EdgeMilError) -> tuple[tuple[str, str], ...]:
    """Return the reason, and when to try again, in the form that every client can read."""
    pairs = [(REASON_KEY, reason_of(error))]
    if (seconds := retry_after_s(error)) is not None:
        pairs.append((RETRY_KEY, str(round(seconds * 1000))))
    return tuple(pairs)


def to_field_error(error: EdgeMilError) -> pb.FieldError:
    """Return an error of one field, after which the stream goes on."""
    message = pb.FieldError(
        code=code_of(error).value[0],
        reason=reason_of(error),
        message=str(error),
        metadata=numbers_of(error),
    )
    if (seconds := retry_after_s(error)) is not None:
        message.retry_after.CopyFrom(duration(seconds))
    return message
