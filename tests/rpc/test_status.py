"""Every error has one status and one reason."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

from edge_mil import errors
from edge_mil.errors import EdgeMilError, RemoteError
from edge_mil.rpc import status

GROUPS = tuple(status.REMOTE_OF)


def below(kind: type[EdgeMilError]) -> Iterator[type[EdgeMilError]]:
    """Yield every class below one in the tree, those of the exporter left out."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from below(child)


ALL = sorted(set(below(EdgeMilError)) - set(GROUPS), key=lambda kind: kind.__name__)


def make(kind: type[EdgeMilError], **details: object) -> EdgeMilError:
    if kind is errors.EmptyBagError:
        return kind()
    if issubclass(kind, RemoteError):
        return kind("It went wrong.", "INTERNAL", **details)
    return kind("It went wrong.", **details)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_a_reason(kind: type[EdgeMilError]) -> None:
    error = make(kind)
    code, reason = status.code_of(error), status.reason_of(error)
    assert code is not grpc.StatusCode.OK
    assert re.fullmatch(r"[A-Z][A-Z_]+", reason)
    made = status.to_status(error)
    info = error_details_pb2.ErrorInfo()
    assert made.details[0].Unpack(info)
    assert (made.code, info.reason, info.domain) == (code.value[0], reason, "edge-mil")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_of_one_group(kind: type[EdgeMilError]) -> None:
    groups = {group for group in GROUPS if issubclass(kind, group)}
    # A damaged calibration is caught with the calibrations and with the damaged data.
    wanted = 2 if kind is errors.DamagedCalibrationError else 0 if kind is RemoteError else 1
    assert len(groups) == wanted


@pytest.mark.parametrize("kind", status.STATUS_OF, ids=lambda kind: kind.__name__)
def test_a_client_raises_an_error_of_the_group_that_the_service_raised(
    kind: type[EdgeMilError],
) -> None:
    error = make(kind)
    received = status.remote_error(str(error), status.code_of(error).name, status.reason_of(error))
    assert (received.code, received.reason) == (
        status.code_of(error).name,
        status.reason_of(error),
    )
    assert [isinstance(received, group) for group in GROUPS] == [
        isinstance(error, group) for group in GROUPS
    ]


@pytest.mark.parametrize(
    ("code", "reason", "group"),
    [
        ("FAILED_PRECONDITION", "CALIBRATION_BUSY", errors.BusyError),
        ("FAILED_PRECONDITION", "CALIBRATION_STALE", errors.BadInputError),
        ("FAILED_PRECONDITION", "CALIBRATION_DAMAGED", errors.DamagedDataError),
        ("RESOURCE_EXHAUSTED", "STORE_FAILED", errors.DamagedDataError),
        ("RESOURCE_EXHAUSTED", "", errors.BusyError),
        ("UNIMPLEMENTED", "OF_A_NEWER_SERVICE", errors.UnavailableError),
    ],
)
def test_a_finer_reason_is_of_its_own_group_and_an_unknown_one_of_its_codes(
    code: str, reason: str, group: type[EdgeMilError]
) -> None:
    assert isinstance(status.remote_error("No.", code, reason), group)


def test_the_tree_at_the_top_of_the_file_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    assert sorted(drawn) == sorted(kind.__name__ for kind in {*ALL, *GROUPS})


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


def test_a_long_or_unprintable_text_of_a_client_does_not_break_the_answers_metadata() -> None:
    text = "\x1b[2J" + "x" * 100_000
    error = errors.UsageError(f"There is no {text}", field=text, asked=text)
    rich = status.to_status(error).SerializeToString()
    assert len(rich) < 8 << 10
    assert b"\x1b" not in rich
    of_field = status.to_field_error(error).SerializeToString()
    assert b"\x1b" not in of_field
    assert len(of_field) < 4 << 10
