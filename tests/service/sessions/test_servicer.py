"""Sessions over the wire: opening, its mistakes, removing, closing, listing."""

from __future__ import annotations

import json

import grpc
import pytest
import rfc8785
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from running_service import WireStream, open_session, tissue_frames

from edge_mil.rpc.status import REASON_KEY
from edge_mil.types import RESEARCH_USE_ONLY
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

Code = grpc.StatusCode


def with_fields(channel: grpc.Channel, count: int) -> str:
    session = open_session(channel).session_id
    stream = WireStream(channel, session)
    for sequence, frame in enumerate(tissue_frames(count), 1):
        stream.send(frame, sequence)
        stream.result()
    stream.end()
    return session


def refused(channel: grpc.Channel, **request: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        open_session(channel, **request)
    return caught.value


def reason(error: grpc.RpcError) -> str:
    return dict(error.trailing_metadata())[REASON_KEY]


def test_the_bundle_and_the_pixel_size_come_back(channel: grpc.Channel) -> None:
    session = open_session(channel, labels={"scanner": "a"}, slide_label="S1")
    assert session.model.bundle_id == "small"
    assert session.model.tile_width_px == session.model.tile_height_px == 64
    assert list(session.model.tissue.background) == [240.0] * 3
    assert (session.mpp, session.mpp_source) == (0.5, "declared")
    assert dict(session.labels) == {"scanner": "a"}
    optics = pb.Optics(camera_pixel_um=5.0, objective_magnification=20, binning=2)
    session = open_session(channel, optics=optics)
    assert (session.mpp, session.mpp_source) == (0.5, "optics")


def test_a_camera_too_coarse_is_taken_where_the_client_says_so(channel: grpc.Channel) -> None:
    session = open_session(channel, optics=pb.Optics(mpp=2.5), allow_enlargement=True)
    assert session.mpp == 2.5


WRONG = {
    "no pixel size": ({"optics": pb.Optics()}, Code.INVALID_ARGUMENT, "PIXEL_SIZE_UNKNOWN"),
    "NaN": ({"optics": pb.Optics(mpp=float("nan"))}, Code.INVALID_ARGUMENT, "PIXEL_SIZE_INVALID"),
    "1e308": ({"optics": pb.Optics(mpp=1e308)}, Code.INVALID_ARGUMENT, "PIXEL_SIZE_INVALID"),
    "too coarse": ({"optics": pb.Optics(mpp=5)}, Code.INVALID_ARGUMENT, "PIXEL_SIZE_INVALID"),
    "optics disagree": (
        {"optics": pb.Optics(mpp=0.5, camera_pixel_um=5, objective_magnification=20)},
        Code.INVALID_ARGUMENT,
        "OPTICS_MISMATCH",
    ),
    "calibration": (
        {"optics": pb.Optics(calibration_id="c")},
        Code.FAILED_PRECONDITION,
        "CALIBRATION_NOT_FOUND",
    ),
    "stage unit": ({"stage": pb.StageFrame(unit="mm")}, Code.INVALID_ARGUMENT, "STAGE_UNIT"),
    "affine that nobody calibrated": (
        {"stage": pb.StageFrame(unit="um", pixel_size_affine=[1, 0, 0, 0, 1, 0])},
        Code.INVALID_ARGUMENT,
        "AFFINE_MISMATCH",
    ),
    "affine of five numbers": (
        {"stage": pb.StageFrame(unit="um", pixel_size_affine=[0.5, 0, 0, 0, 0.5])},
        Code.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    ),
    "affine and flip": (
        {"stage": pb.StageFrame(x_flipped=True, pixel_size_affine=[0.5, 0, 0, 0, 0.5, 0])},
        Code.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    ),
    "rotation": (
        {"stage": pb.StageFrame(rotation_deg=float("nan"))},
        Code.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    ),
    "area": (
        {"stage": pb.StageFrame(area=pb.Region(width_um=0, height_um=1))},
        Code.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    ),
    "no such bundle": ({"bundle_id": "other"}, Code.NOT_FOUND, "BUNDLE_NOT_FOUND"),
    "digest": (
        {"bundle_digest": "sha256:" + "0" * 64},
        Code.FAILED_PRECONDITION,
        "BUNDLE_DIGEST_MISMATCH",
    ),
    "protocol": ({"protocol_version": "edge_mil.v9"}, Code.UNIMPLEMENTED, "PROTOCOL_VERSION"),
    "endless expiry": (
        {"idle_timeout": Duration(seconds=10**11)},
        Code.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    ),
    "past expiry": (
        {"idle_timeout": Duration(seconds=-1)},
        Code.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    ),
    "long label": ({"slide_label": "x" * 300}, Code.INVALID_ARGUMENT, "ARGUMENT_INVALID"),
    "outline": (
        {"tissue": [pb.Region(width_um=-1, height_um=1)]},
        Code.INVALID_ARGUMENT,
        "ARGUMENT_INVALID",
    ),
}


@pytest.mark.parametrize(("request_", "code", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_opening_is_refused_with_its_reason(
    channel: grpc.Channel, request_: dict[str, object], code: grpc.StatusCode, expected: str
) -> None:
    error = refused(channel, **request_)
    assert (error.code(), reason(error)) == (code, expected)
    assert error.details().endswith((".", ")"))


def test_details_are_rich_where_a_client_reads_them(channel: grpc.Channel) -> None:
    error = refused(channel, optics=pb.Optics())
    status = rpc_status.from_call(error)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("PIXEL_SIZE_UNKNOWN", "edge-mil")
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "optics.mpp"


def test_the_same_request_id_is_the_same_session(channel: grpc.Channel) -> None:
    first = open_session(channel, request_id="a-1")
    assert open_session(channel, request_id="a-1").session_id == first.session_id
    error = refused(channel, request_id="a-1", optics=pb.Optics(mpp=0.4))
    assert (error.code(), reason(error)) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")


@pytest.mark.parametrize("name", ["", "nope", "../../etc", "01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_an_unknown_session_is_not_found(channel: grpc.Channel, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.SessionServiceStub(channel).GetSession(pb.GetSessionRequest(session_id=name))
    assert (caught.value.code(), reason(caught.value)) == (Code.NOT_FOUND, "SESSION_NOT_FOUND")


def test_sessions_are_listed_newest_first_in_pages(channel: grpc.Channel) -> None:
    made = [open_session(channel).session_id for _ in range(3)]
    stub, found, token = rpc.SessionServiceStub(channel), [], ""
    for _ in range(2):
        page = stub.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
        assert 1 <= len(page.sessions) <= 2
        found += [session.session_id for session in page.sessions]
        token = page.next_page_token
    # Other tests may have sessions too, all of them older; ids of one millisecond have no order.
    assert set(made) <= set(found)


def test_a_removed_field_leaves_the_score_and_stays_on_record(channel: grpc.Channel) -> None:
    session = with_fields(channel, 3)
    stub, view = rpc.SessionServiceStub(channel), rpc.ViewServiceStub(channel)
    two = with_fields(channel, 2)
    expected = view.GetScore(pb.GetScoreRequest(session_id=two)).score
    request = pb.RemoveFieldRequest(session_id=session, sequence=3, reason="dust")
    for _ in range(2):
        score = stub.RemoveField(request).score
        assert list(score.classes) == list(expected.classes)
    fields = view.ListFields(pb.ListFieldsRequest(session_id=session)).fields
    assert [field.removed for field in fields] == [False, False, True]
    with pytest.raises(grpc.RpcError) as caught:
        stub.RemoveField(pb.RemoveFieldRequest(session_id=session, sequence=9))
    assert reason(caught.value) == "FIELD_NOT_FOUND"


def test_closing_checks_the_count_and_gives_the_same_report_again(channel: grpc.Channel) -> None:
    session, stub = with_fields(channel, 2), rpc.SessionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.CloseSession(pb.CloseSessionRequest(session_id=session, expected_fields=3))
    assert (caught.value.code(), reason(caught.value)) == (
        Code.FAILED_PRECONDITION,
        "FIELDS_MISSING",
    )
    request = pb.CloseSessionRequest(session_id=session, expected_fields=2)
    first, second = stub.CloseSession(request), stub.CloseSession(request)
    assert first.session.state == pb.SESSION_STATE_CLOSED
    assert first.report_json == second.report_json
    report = json.loads(first.report_json)
    assert rfc8785.dumps(report) == first.report_json
    assert report["notice"] == RESEARCH_USE_ONLY
    assert report["fields"] == {"ACCEPTED": 2}
    assert report["bundle"].startswith("sha256:")
    logits = [entry.logit for entry in first.session.score.classes]
    assert report["score"]["logits"] == logits
