"""One session of the service: send fields, read scores, fields and maps, close."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from edge_mil.client.channel import Channel, error_of
from edge_mil.client.decoding import (
    cell_layer,
    field_info,
    influence_map,
    mosaic_info,
    score_info,
    session_info,
    state_name,
)
from edge_mil.client.reconnection import GIVE_UP_AFTER_S
from edge_mil.client.stream import FieldStream
from edge_mil.client.stream_summary import StreamSummary
from edge_mil.client.values import FieldInfo, MosaicInfo, ScoreInfo, SessionInfo
from edge_mil.errors import RemoteError, UsageError
from edge_mil.rpc.results import duration
from edge_mil.types import CellLayer, FieldResult, Frame, InfluenceMap, SlideScore
from edge_mil.v1 import edge_mil_pb2 as pb

RELEASES = {
    "same-slide": pb.HOLD_RELEASE_SAME_SLIDE,
    "insist": pb.HOLD_RELEASE_INSIST,
}
"""How a held session is released, as the wire has it."""


@dataclass(frozen=True, slots=True)
class ClosedSession:
    """A session at its end.

    Attributes:
        info: Its status.
        report: The service's report, parsed.
        report_json: The same as canonical JSON, to be kept.
    """

    info: SessionInfo
    report: dict[str, Any]
    report_json: bytes

    @property
    def score(self) -> SlideScore | None:
        """The last score; None when there was none."""
        return self.info.score


class ClientSession:
    """One slide being read by the service.

    Every method but `stream` raises ServiceUnavailableError where the service cannot be reached or
    does not answer in time, and RemoteError where it refuses: the session is closed, say.

    Attributes:
        session_id: Its id, to resume it.
        opened: Its status when it was opened or resumed.
    """

    def __init__(self, channel: Channel, opened: SessionInfo) -> None:
        self._channel, self.opened = channel, opened
        self.session_id = opened.session_id

    def info(self) -> SessionInfo:
        request = pb.GetSessionRequest(session_id=self.session_id)
        found = self._channel.call(self._channel.sessions.GetSession, request)
        return session_info(found.session)

    def stream(
        self,
        *,
        live: bool = False,
        takeover: bool = False,
        on_result: Callable[[FieldResult, Frame], None] | None = None,
        on_error: Callable[[RemoteError, Frame], None] | None = None,
        on_disconnected: Callable[[str], None] | None = None,
        on_resumed: Callable[[], None] | None = None,
        give_up_after_s: float = GIVE_UP_AFTER_S,
    ) -> FieldStream:
        """Start a stream of fields that resumes by itself; use it in a `with` block.

        Args:
            live: `send` never waits: when the service is behind the oldest frame is dropped and
                counted. Otherwise `send` waits, also while the service is away.
            takeover: End another client's stream to this session.
            on_result: Called with each answer and its frame, in order, in another thread.
            on_error: Called where a field could not be processed; the stream goes on.
            on_disconnected: Called with a sentence when the service goes away.
            on_resumed: Called when it is back.
            give_up_after_s: How long it may be away.
        """
        return FieldStream(
            self._channel,
            self.session_id,
            live=live,
            takeover=takeover,
            on_result=on_result,
            on_error=on_error,
            on_disconnected=on_disconnected,
            on_resumed=on_resumed,
            give_up_after_s=give_up_after_s,
        )

    def send_frames(
        self,
        frames: Iterable[Frame],
        on_result: Callable[[FieldResult, Frame], None] | None = None,
        *,
        on_error: Callable[[RemoteError, Frame], None] | None = None,
        on_disconnected: Callable[[str], None] | None = None,
        on_resumed: Callable[[], None] | None = None,
        takeover: bool = False,
        give_up_after_s: float = GIVE_UP_AFTER_S,
    ) -> StreamSummary:
        """Send every frame of a source that can wait, and return when all are answered.

        Raises:
            ServiceUnavailableError: The service stayed away for too long.
            RemoteError: It refuses the stream.
        """
        with self.stream(
            takeover=takeover,
            on_result=on_result,
            on_error=on_error,
            on_disconnected=on_disconnected,
            on_resumed=on_resumed,
            give_up_after_s=give_up_after_s,
        ) as stream:
            for frame in frames:
                stream.send(frame)
            return stream.finish()

    def score(self) -> ScoreInfo:
        """Return the newest durable score."""
        request = pb.GetScoreRequest(session_id=self.session_id)
        found = self._channel.call(self._channel.views.GetScore, request)
        return score_info(found.score, found.bundle_digest)

    def watch(self, *, after_revision: int = 0, min_interval_s: float = 0.0) -> Iterator[ScoreInfo]:
        """Yield the score at each change until the session is closed."""
        request = pb.WatchScoreRequest(
            session_id=self.session_id,
            after_revision=after_revision,
            min_interval=duration(min_interval_s),
        )
        call: Any = self._channel.views.WatchScore(request)
        try:
            for found in call:
                yield score_info(
                    found.score,
                    found.bundle_digest,
                    state_name(found.state),
                    heartbeat=found.heartbeat,
                )
        except grpc.RpcError as error:
            raise error_of(error, self._channel.address) from error
        finally:
            call.cancel()

    def fields(self) -> list[FieldInfo]:
        """Return every answered field, by number."""
        request = pb.ListFieldsRequest(session_id=self.session_id)
        pages = self._channel.pages(self._channel.views.ListFields, request)
        return [field_info(message) for page in pages for message in page.fields]

    def top_fields(self, count: int = 10, class_name: str = "") -> list[FieldInfo]:
        """Return the fields of largest influence on a class' logit; "" takes the last class."""
        request = pb.GetTopFieldsRequest(
            session_id=self.session_id, count=count, class_name=class_name
        )
        found = self._channel.call(self._channel.views.GetTopFields, request)
        return [field_info(message) for message in found.fields]

    def thumbnail(self, sequence: int) -> bytes:
        """Return a small JPEG of an accepted field.

        Raises:
            RemoteError: None is kept of that field.
        """
        request = pb.GetFieldThumbnailRequest(session_id=self.session_id, sequence=sequence)
        found = self._channel.call(self._channel.views.GetFieldThumbnail, request)
        return found.jpeg

    def heat_map(self, class_name: str = "") -> InfluenceMap:
        """Return each cell's influence on a class' logit; "" takes the last class."""
        request = pb.GetHeatmapRequest(session_id=self.session_id, class_name=class_name)
        return influence_map(self._channel.call(self._channel.views.GetHeatmap, request))

    def layer(self, name: str) -> CellLayer:
        """Return one number for each cell.

        Args:
            name: "focus", how sharply it was seen, or "coverage", the share of it that was seen.

        Raises:
            RemoteError: There is no such layer, or the fields have no positions.
        """
        request = pb.GetHeatmapRequest(session_id=self.session_id, layer=name)
        found = self._channel.call(self._channel.views.GetHeatmap, request)
        return cell_layer(name, found)

    def mosaic(self, um_per_px: float = 0.0) -> MosaicInfo | None:
        """Return the mosaic of the slide; None before the first accepted field.

        Args:
            um_per_px: Finest size of its pixels; 0 is the usual one.
        """
        request = pb.GetMosaicRequest(session_id=self.session_id, um_per_px=um_per_px)
        found = self._channel.call(self._channel.views.GetMosaic, request)
        return mosaic_info(found)

    def remove_field(self, sequence: int, reason: str) -> ScoreInfo:
        """Take a field out of the score; its record stays.

        Raises:
            RemoteError: There is no such field, or the session is closed.
        """
        request = pb.RemoveFieldRequest(
            session_id=self.session_id,
            sequence=sequence,
            request_id=str(uuid.uuid4()),
            reason=reason,
        )
        found = self._channel.call(self._channel.sessions.RemoveField, request)
        return score_info(found.score, self.opened.model.digest)

    def release(self, how: str, reason: str = "") -> SessionInfo:
        """Let a session go on that a check holds (`SessionInfo.geometry` or `slide`).

        Args:
            how: "same-slide": the slide was cleaned or put back, and is compared anew; "insist":
                count in spite of the contradiction.
            reason: For the session's events.

        Raises:
            UsageError: There is no such release.
            RemoteError: Nothing holds the session, or what holds it needs another answer.
        """
        if how not in RELEASES:
            raise UsageError(f"A session is released as {' or '.join(RELEASES)}, not as {how!r}.")
        request = pb.ReleaseSessionRequest(
            session_id=self.session_id,
            request_id=str(uuid.uuid4()),
            how=RELEASES[how],
            reason=reason,
        )
        found = self._channel.call(self._channel.sessions.ReleaseSession, request)
        return session_info(found.session)

    def close(self, *, expected_fields: int = 0) -> ClosedSession:
        """End the session; again it has the same report.

        Args:
            expected_fields: Refuse when the service holds another number; 0 does not ask.

        Raises:
            RemoteError: Fields are missing.
        """
        request = pb.CloseSessionRequest(
            session_id=self.session_id,
            request_id=str(uuid.uuid4()),
            expected_fields=expected_fields,
        )
        found = self._channel.call(
            self._channel.sessions.CloseSession,
            request,
            timeout_s=self._channel.timeouts.close_s,
            connect_s=self._channel.timeouts.close_s,
        )
        return ClosedSession(
            session_info(found.session), json.loads(found.report_json), found.report_json
        )
