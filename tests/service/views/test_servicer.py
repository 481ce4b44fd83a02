"""ViewService over the wire: scores, watching, fields, influences, layers, the mosaic."""

from __future__ import annotations

import threading
import time

import cv2
import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from running_service import WireStream, open_session, tissue_frames

from edge_mil.rpc.status import REASON_KEY
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

FIELDS = 6


@pytest.fixture(scope="module")
def read(service) -> tuple[str, list[pb.FieldResult]]:
    """One session with some fields, and its answers."""
    with service.channel as channel:
        session = open_session(channel).session_id
        stream, answers = WireStream(channel, session), []
        for sequence, frame in enumerate(tissue_frames(FIELDS), 1):
            stream.send(frame, sequence)
            answers.append(stream.result())
        stream.end()
        return session, answers


def test_the_score_is_that_of_the_last_answer(
    channel: grpc.Channel, read: tuple[str, list[pb.FieldResult]]
) -> None:
    found = rpc.ViewServiceStub(channel).GetScore(pb.GetScoreRequest(session_id=read[0]))
    assert list(found.score.classes) == list(read[1][-1].score.classes)
    assert found.score.coverage == read[1][-1].score.coverage
    assert found.bundle_digest.startswith("sha256:")
    assert found.notice.startswith("Research use only")


def test_fields_come_in_pages_with_what_they_were_answered(
    channel: grpc.Channel, read: tuple[str, list[pb.FieldResult]]
) -> None:
    view, found, token = rpc.ViewServiceStub(channel), [], ""
    while True:
        page = view.ListFields(
            pb.ListFieldsRequest(session_id=read[0], page_size=4, page_token=token)
        )
        found += page.fields
        token = page.next_page_token
        if not token:
            break
    assert [field.sequence for field in found] == list(range(1, FIELDS + 1))
    assert [field.score for field in found] == [answer.score for answer in read[1]]
    assert found[1].stage_x_um == 144.0
    assert found[1].width_um == 96.0


def test_top_fields_move_the_logit_most(
    channel: grpc.Channel, read: tuple[str, list[pb.FieldResult]]
) -> None:
    view = rpc.ViewServiceStub(channel)
    found = view.GetTopFields(pb.GetTopFieldsRequest(session_id=read[0], count=3))
    sizes = [abs(field.influence) for field in found.fields]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    assert found.class_name == "positive"
    with pytest.raises(grpc.RpcError) as caught:
        view.GetTopFields(pb.GetTopFieldsRequest(session_id=read[0], class_name="no"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_heat_map_has_a_number_where_something_was_seen(
    channel: grpc.Channel, read: tuple[str, list[pb.FieldResult]]
) -> None:
    found = rpc.ViewServiceStub(channel).GetHeatmap(pb.GetHeatmapRequest(session_id=read[0]))
    values = np.frombuffer(found.values_f32le, "<f4").reshape(found.rows, found.columns)
    assert np.isfinite(values).sum() == read[1][-1].score.instances
    assert np.isnan(values).any()
    assert found.um_per_cell == found.um_per_row == 32.0


def test_focus_and_coverage_are_layers_of_the_same_cells(
    channel: grpc.Channel, read: tuple[str, list[pb.FieldResult]]
) -> None:
    view = rpc.ViewServiceStub(channel)
    found = {
        name: view.GetHeatmap(pb.GetHeatmapRequest(session_id=read[0], layer=name))
        for name in ("focus", "coverage")
    }
    focus, coverage = (
        np.frombuffer(layer.values_f32le, "<f4").reshape(layer.rows, layer.columns)
        for layer in found.values()
    )
    assert np.isfinite(focus).sum() == read[1][-1].score.instances
    assert (coverage == 1).sum() >= read[1][-1].score.instances
    with pytest.raises(grpc.RpcError) as caught:
        view.GetHeatmap(pb.GetHeatmapRequest(session_id=read[0], layer="depth"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_mosaic_is_a_picture_with_its_place(
    channel: grpc.Channel, read: tuple[str, list[pb.FieldResult]]
) -> None:
    view = rpc.ViewServiceStub(channel)
    empty = open_session(channel).session_id
    assert not view.GetMosaic(pb.GetMosaicRequest(session_id=empty)).jpeg
    found = view.GetMosaic(pb.GetMosaicRequest(session_id=read[0], um_per_px=2.0))
    picture = cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (found.rows, found.columns, 3)
    assert found.um_per_px == 2.0
    assert found.as_of_sequence == FIELDS
    with pytest.raises(grpc.RpcError) as caught:
        view.GetMosaic(pb.GetMosaicRequest(session_id=read[0], um_per_px=float("nan")))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_thumbnail_is_a_jpeg(
    channel: grpc.Channel, read: tuple[str, list[pb.FieldResult]]
) -> None:
    view = rpc.ViewServiceStub(channel)
    found = view.GetFieldThumbnail(pb.GetFieldThumbnailRequest(session_id=read[0], sequence=1))
    assert cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_COLOR) is not None
    with pytest.raises(grpc.RpcError) as caught:
        view.GetFieldThumbnail(pb.GetFieldThumbnailRequest(session_id=read[0], sequence=99))
    assert dict(caught.value.trailing_metadata())[REASON_KEY] == "FIELD_NOT_FOUND"


def test_watching_gives_the_newest_score_and_ends_with_the_session(channel: grpc.Channel) -> None:
    session = open_session(channel).session_id
    view, seen = rpc.ViewServiceStub(channel), []
    # A slow watcher: what happens within its interval is one message.
    call = view.WatchScore(
        pb.WatchScoreRequest(session_id=session, min_interval=Duration(seconds=5))
    )
    began = time.monotonic()
    watcher = threading.Thread(target=lambda: seen.extend(call))
    watcher.start()
    stream = WireStream(channel, session)
    for sequence, frame in enumerate(tissue_frames(10), 1):
        stream.send(frame, sequence)
        last = stream.result()
    stream.end()
    rpc.SessionServiceStub(channel).CloseSession(pb.CloseSessionRequest(session_id=session))
    watcher.join(timeout=60)
    revisions = [message.score.revision for message in seen]
    assert revisions == sorted(revisions)
    assert revisions[-1] == last.score.revision
    # One in each interval, however long ten fields take here; the first and the last besides.
    assert len(revisions) <= (time.monotonic() - began) / 0.2 + 2
    assert seen[-1].state == pb.SESSION_STATE_CLOSED
