"""Errors as gRPC statuses, and back: the only place that turns one into the other.

A status carries one `ErrorInfo` and the detail that its code calls for
(`docs/design/serving-and-durability.md`, "Errors on the wire"). The reason also travels as trailing
metadata, so that a light client needs no googleapis package to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc

from edge_mil import errors
from edge_mil.errors import EdgeMilError, RemoteError
from edge_mil.limits import MAX_NAME_BYTES, printable
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
        errors.ServiceBusyError: (Code.RESOURCE_EXHAUSTED, "SERVICE_BUSY"),
        errors.ClientSilentError: (Code.ABORTED, "CLIENT_SILENT"),
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
        errors.DamagedStoreError: (Code.DATA_LOSS, "SESSION_DAMAGED"),
        errors.StoreFullError: (Code.RESOURCE_EXHAUSTED, "STORE_FULL"),
        errors.StoreBusyError: (Code.UNAVAILABLE, "STORE_BUSY"),
        errors.StoreDeniedError: (Code.FAILED_PRECONDITION, "STORE_DENIED"),
        errors.UsageError: (Code.INVALID_ARGUMENT, "ARGUMENT_INVALID"),
    }
)
"""Status and reason of every error; `details["reason"]`, where an error has one, is finer.

A class that is not in the table has the status of the nearest of its bases that is."""

REMOTE_OF: Mapping[type[EdgeMilError], type[RemoteError]] = MappingProxyType(
    {
        errors.UnavailableError: errors.RemoteUnavailableError,
        errors.BusyError: errors.RemoteBusyError,
        errors.BadInputError: errors.RemoteBadInputError,
        errors.DamagedDataError: errors.RemoteDamagedDataError,
    }
)
"""Group of an error -> what a client raises when the service answers with one of that group."""

GROUP_OF_CODE: Mapping[str, type[EdgeMilError]] = MappingProxyType(
    {
        "UNAVAILABLE": errors.UnavailableError,
        "UNIMPLEMENTED": errors.UnavailableError,
        "ABORTED": errors.BusyError,
        "RESOURCE_EXHAUSTED": errors.BusyError,
        "INVALID_ARGUMENT": errors.BadInputError,
        "NOT_FOUND": errors.BadInputError,
        "ALREADY_EXISTS": errors.BadInputError,
        "FAILED_PRECONDITION": errors.BadInputError,
        "DATA_LOSS": errors.DamagedDataError,
    }
)
"""Group of a status whose reason is finer than those of STATUS_OF, or of a newer service."""

KIND_OF_REASON: Mapping[str, type[EdgeMilError]] = MappingProxyType(
    {
        **{reason: kind for kind, (_, reason) in STATUS_OF.items()},
        "BUNDLE_IN_USE": errors.BusyError,
        "BUNDLE_PREPARING": errors.BusyError,
        "CALIBRATION_BUSY": errors.BusyError,
        "CALIBRATION_DAMAGED": errors.DamagedDataError,
    }
)
"""Reason -> error; of the finer reasons those whose group is not that of their code."""

RETRY_AFTER_S: Mapping[type[EdgeMilError], float] = MappingProxyType(
    {
        errors.BundleNotReadyError: 1.0,
        errors.StoreError: 5.0,
        errors.ServiceBusyError: 1.0,
        errors.ClientSilentError: 0.1,
        errors.StoreFullError: 5.0,
        errors.StoreBusyError: 1.0,
    }
)
"""When to try again, where the error itself does not say."""

INTERNAL_MESSAGE = "The service failed in a way that it did not foresee; its log has the details."
INTERNAL_METADATA = ((REASON_KEY, "INTERNAL"),)


def code_of(error: EdgeMilError) -> grpc.StatusCode:
    """Return the gRPC code of an error."""
    return _status_of(error)[0]


def reason_of(error: EdgeMilError) -> str:
    """Return the UPPER_SNAKE reason of an error."""
    return error.details.get("reason") or _status_of(error)[1]


def retry_after_s(error: EdgeMilError) -> float | None:
    """Return when the call may be tried again, seconds; None when trying again is no use."""
    said = error.details.get("retry_after_s")
    return float(said) if said else RETRY_AFTER_S.get(type(error))


def sentence_of(error: EdgeMilError) -> str:
    """Return the error's message, printable and short enough for the metadata of an answer."""
    return printable(" ".join(str(error).splitlines()))


def numbers_of(error: EdgeMilError) -> dict[str, str]:
    """Return the details of an error but those that the status has a place of its own for."""
    return {
        name: printable(value, MAX_NAME_BYTES)
        for name, value in error.details.items()
        if name not in ("reason", "retry_after_s", "field")
    }


def to_status(error: EdgeMilError) -> Status:
    """Return the rich status of an error; needs the extra `device`."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.rpc import error_details_pb2, status_pb2

    code, reason, sentence = code_of(error), reason_of(error), sentence_of(error)
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=numbers_of(error))
    ]
    if code is Code.INVALID_ARGUMENT:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(
            field=printable(error.details.get("field", ""), MAX_NAME_BYTES),
            description=sentence,
            reason=reason,
        )
        details.append(bad)
    if code is Code.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(type=reason, subject=DOMAIN, description=sentence)
        details.append(failure)
    if (seconds := retry_after_s(error)) is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(seconds)))
    packed = []
    for detail in details:
        box = AnyMessage()
        box.Pack(detail)
        packed.append(box)
    return status_pb2.Status(code=code.value[0], message=sentence, details=packed)


def trailing_metadata(error: EdgeMilError) -> tuple[tuple[str, str], ...]:
    """Return the reason, and when to try again, as pairs of text that every client can read."""
    pairs = [(REASON_KEY, reason_of(error))]
    if (seconds := retry_after_s(error)) is not None:
        pairs.append((RETRY_KEY, str(round(seconds * 1000))))
    return tuple(pairs)


def to_field_error(error: EdgeMilError) -> pb.FieldError:
    """Return an error of one field, after which the stream goes on."""
    message = pb.FieldError(
        code=code_of(error).value[0],
        reason=reason_of(error),
        message=sentence_of(error),
        metadata=numbers_of(error),
    )
    if (seconds := retry_after_s(error)) is not None:
        message.retry_after.CopyFrom(duration(seconds))
    return message


def remote_error(message: str, code: str, reason: str = "", **details: object) -> RemoteError:
    """Return the error that a client raises for a status of the service.

    Args:
        message: The status' sentence.
        code: Name of its code, as "NOT_FOUND".
        reason: Its reason; "" when it has none.
        details: Numbers and names behind the message.
    """
    kind = KIND_OF_REASON.get(reason) or GROUP_OF_CODE.get(code, EdgeMilError)
    remote = next((r for group, r in REMOTE_OF.items() if issubclass(kind, group)), RemoteError)
    return remote(message, code, reason, **details)


def _status_of(error: EdgeMilError) -> tuple[grpc.StatusCode, str]:
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)
