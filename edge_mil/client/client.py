"""`edge_mil.Client`: one service, from Python."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge_mil.client.session import ClientSession
from edge_mil.client.values import (
    ModelInfo,
    ServerInfo,
    SessionInfo,
    model_info,
    session_info,
)
from edge_mil.client.wire import Timeouts, Wire
from edge_mil.rpc.codec import encode_regions
from edge_mil.types import Region
from edge_mil.v1 import edge_mil_pb2 as pb

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_ADDRESS = "127.0.0.1:50051"
PROTOCOL_VERSION = "edge_mil.v1"


class Client:
    """Talks to an `edge-mil serve`.

    In short::

    with edge_mil.Client() as client:
        session = client.open_session(mpp=0.5)
        session.send_frames(camera.frames())
        print(session.close().score)
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        connect_timeout_s: float = 5.0,
        call_timeout_s: float = 5.0,
        close_timeout_s: float = 30.0,
        bundle_timeout_s: float = 300.0,
    ) -> None:
        """Name a service; nothing is sent yet.

        Args:
            address: HOST:PORT or unix:PATH.
            connect_timeout_s: Until a service that cannot be reached is given up.
            call_timeout_s: Limit of one call.
            close_timeout_s: Limit of closing a session.
            bundle_timeout_s: Until a bundle that is still loading is given up.
        """
        self.address = address
        timeouts = Timeouts(connect_timeout_s, call_timeout_s, close_timeout_s, bundle_timeout_s)
        self._wire = Wire(address, timeouts)

    def server_info(self) -> ServerInfo:
        """Return which service this is.

        Raises:
            ServiceUnavailableError: It cannot be reached.
        """
        found = self._wire.call(
            lambda s: self._wire.models.GetServerInfo(pb.GetServerInfoRequest(), timeout=s)
        )
        return ServerInfo(
            found.server_version, found.instance_id, tuple(found.features), found.preferred_credits
        )

    def models(self) -> list[ModelInfo]:
        """Return the bundles of the service, ready or not.

        Raises:
            ServiceUnavailableError: It cannot be reached.
        """
        found: list[ModelInfo] = []
        request = pb.ListModelsRequest()
        while True:
            page = self._wire.call(lambda s: self._wire.models.ListModels(request, timeout=s))
            found += [model_info(message) for message in page.models]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def sessions(self) -> list[SessionInfo]:
        """Return the sessions of the service, newest first.

        Those that are not in use name only what they were opened with; `resume` tells the rest.

        Raises:
            ServiceUnavailableError: It cannot be reached.
        """
        found: list[SessionInfo] = []
        request = pb.ListSessionsRequest()
        while True:
            page = self._wire.call(lambda s: self._wire.sessions.ListSessions(request, timeout=s))
            found += [session_info(message) for message in page.sessions]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def open_session(
        self,
        bundle: str = "",
        *,
        mpp: float | None = None,
        optics: pb.Optics | None = None,
        stage: pb.StageFrame | None = None,
        digest: str = "",
        independent: bool = False,
        tissue: Iterable[Region] = (),
        slide_label: str = "",
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> ClientSession:
        """Start reading a slide; waits while the bundle is loading.

        Args:
            bundle: Name of the bundle; "" where the service has one.
            mpp: Pixel size of the camera on the slide, um/px.
            optics: The optics instead, or besides, as the wire has them.
            stage: How the camera lies on the stage, as the wire has it (flips, rotation or
                Micro-Manager's affine, the area to read, no stage at all); None: its axes are
                the picture's.
            digest: Refuse another bundle of that name.
            independent: Fields are different places, named by `Frame.place`.
            tissue: Outline of the tissue where it is known, stage um.
            slide_label: Your name of the slide.
            labels: Your own names and values.
            request_id: The same id with the same arguments is the same session; "" makes one.

        Raises:
            ServiceUnavailableError: The service cannot be reached.
            RemoteError: It refuses; `reason` says why in one word.
        """
        request = pb.OpenSessionRequest(
            request_id=request_id or str(uuid.uuid4()),
            bundle_id=bundle,
            bundle_digest=digest,
            optics=optics,
            slide_label=slide_label,
            labels=dict(labels or {}),
            protocol_version=PROTOCOL_VERSION,
            independent=independent,
            tissue=encode_regions(tissue),
            stage=stage or pb.StageFrame(unit="um"),
        )
        if mpp is not None:
            request.optics.mpp = mpp
        opened = self._wire.call(lambda s: self._wire.sessions.OpenSession(request, timeout=s))
        return ClientSession(self._wire, session_info(opened.session))

    def resume(self, session_id: str) -> ClientSession:
        """Return a session that was opened before; waits while its bundle is loading.

        Raises:
            ServiceUnavailableError: The service cannot be reached.
            RemoteError: There is no such session.
        """
        request = pb.GetSessionRequest(session_id=session_id)
        found = self._wire.call(lambda s: self._wire.sessions.GetSession(request, timeout=s))
        return ClientSession(self._wire, session_info(found.session))

    def close(self) -> None:
        """Close the connection; sessions stay as they are."""
        self._wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
