"""`edge_mil.Client`: one service, its bundles, sessions and calibrations."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from edge_mil.client.calibration import (
    CalibrationInfo,
    calibrate_requests,
    calibration_info,
    kind_of,
)
from edge_mil.client.channel import Channel, Timeouts
from edge_mil.client.decoding import model_info, session_info
from edge_mil.client.session import ClientSession
from edge_mil.client.values import ModelInfo, ServerInfo, SessionInfo
from edge_mil.rpc.results import duration, encode_regions
from edge_mil.types import Frame, Region
from edge_mil.v1 import edge_mil_pb2 as pb

DEFAULT_ADDRESS = "127.0.0.1:50051"
PROTOCOL_VERSION = "edge_mil.v1"
DAY_S = 86_400.0


class Client:
    """One `edge-mil serve`.

    Every method raises ServiceUnavailableError where the service cannot be reached or does not
    answer in time, and RemoteError with a `reason` where it refuses.

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
        calibrate_timeout_s: float = 300.0,
        bundle_timeout_s: float = 300.0,
    ) -> None:
        """Name a service; nothing is sent yet.

        Args:
            address: HOST:PORT or unix:PATH.
            connect_timeout_s: Until a service that cannot be reached is given up.
            call_timeout_s: Limit of one call.
            close_timeout_s: Limit of closing a session.
            calibrate_timeout_s: Limit of measuring one part of a calibration.
            bundle_timeout_s: Until a bundle that is still loading is given up.
        """
        self.address = address
        timeouts = Timeouts(connect_timeout_s, call_timeout_s, close_timeout_s, bundle_timeout_s)
        self._channel = Channel(address, timeouts)
        self._calibrate_timeout_s = calibrate_timeout_s

    def server_info(self) -> ServerInfo:
        """Return the version and the limits of the service."""
        found = self._channel.call(self._channel.models.GetServerInfo, pb.GetServerInfoRequest())
        return ServerInfo(
            found.server_version, found.instance_id, tuple(found.features), found.preferred_credits
        )

    def models(self) -> list[ModelInfo]:
        """Return the bundles of the service, ready or not."""
        pages = self._channel.pages(self._channel.models.ListModels, pb.ListModelsRequest())
        return [model_info(message) for page in pages for message in page.models]

    def sessions(self) -> list[SessionInfo]:
        """Return the sessions of the service, newest first.

        Those that are not in use have only what they were opened with; `resume` gives the rest.
        """
        pages = self._channel.pages(self._channel.sessions.ListSessions, pb.ListSessionsRequest())
        return [session_info(message) for page in pages for message in page.sessions]

    def open_session(
        self,
        bundle: str = "",
        *,
        mpp: float | None = None,
        optics: pb.Optics | None = None,
        stage: pb.StageFrame | None = None,
        calibration: str = "",
        calibration_max_age_days: float | None = None,
        digest: str = "",
        independent: bool = False,
        allow_enlargement: bool = False,
        insist_geometry: bool = False,
        tissue: Iterable[Region] = (),
        slide_label: str = "",
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> ClientSession:
        """Open a session for a slide; waits while the bundle is loading.

        Args:
            bundle: Name of the bundle; "" where the service has one.
            mpp: Pixel size of the camera on the slide, um/px.
            optics: The optics instead, or besides, as the wire has them.
            stage: How the camera lies on the stage, as the wire has it (flips, rotation or
                Micro-Manager's affine, the area to read, no stage at all); None: its axes are
                those of the camera.
            digest: Refuse another bundle of that name.
            independent: Fields are of different locations, named by `Frame.location_id`.
            allow_enlargement: Go on with a camera more than 1.5 times coarser than the model.
            calibration: Name of a calibration of the service that the session runs under.
            calibration_max_age_days: Largest age of a part of it; None: 30 days.
            insist_geometry: Count fields also where the images contradict pixel size or stage.
            tissue: Outline of the tissue where it is known, stage um.
            slide_label: Your name of the slide.
            labels: Your own names and values.
            request_id: The same id with the same arguments is the same session; "" makes one.

        Raises:
            RemoteError: The service refuses, as for want of a pixel size.
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
            allow_enlargement=allow_enlargement,
            insist_geometry=insist_geometry,
            tissue=encode_regions(tissue),
            stage=stage or pb.StageFrame(unit="um"),
        )
        if mpp is not None:
            request.optics.mpp = mpp
        if calibration:
            request.optics.calibration_id = calibration
        if calibration_max_age_days is not None:
            request.optics.calibration_max_age.CopyFrom(duration(calibration_max_age_days * DAY_S))
        opened = self._channel.call(self._channel.sessions.OpenSession, request)
        return ClientSession(self._channel, session_info(opened.session))

    def resume(self, session_id: str) -> ClientSession:
        """Return a session that was opened before; waits while its bundle is loading.

        Raises:
            RemoteError: There is no such session.
        """
        request = pb.GetSessionRequest(session_id=session_id)
        found = self._channel.call(self._channel.sessions.GetSession, request)
        return ClientSession(self._channel, session_info(found.session))

    def calibrate(
        self,
        part: str,
        name: str,
        frames: Iterable[Frame],
        *,
        camera: str = "",
        objective: str = "",
        tube_lens: str = "",
        mpp: float | None = None,
        distance_um: float = 0.0,
        bundle: str = "",
    ) -> CalibrationInfo:
        """Measure one part of a calibration on the service's device, and keep it by name.

        Args:
            part: flat-field, dark-frame, white-balance, pixel-size, gates or stain.
            name: Name of the calibration; the part is added to the one of that name.
            frames: What it is measured from; see `docs/imaging/calibration.md` for each part.
            camera: Which camera and binning, in your words.
            objective: Which objective.
            tube_lens: Which tube lens or adaptor.
            mpp: Pixel size where it is known, um/px.
            distance_um: Distance of a ruler's lines, for pixel-size; 0: frames with positions.
            bundle: Whose tissue test the gates use; "" where the service has one bundle.

        Raises:
            UsageError: There is no such part.
            RemoteError: The frames do not allow it; the message says which would.
        """
        start = pb.CalibrateStart(
            request_id=str(uuid.uuid4()),
            kind=kind_of(part),
            optics=pb.Optics(
                calibration_id=name,
                camera_label=camera,
                objective_label=objective,
                tube_lens_label=tube_lens,
                mpp=mpp,
            ),
            known_distance_um=distance_um,
            bundle_id=bundle,
        )
        kept = list(frames)

        def attempt(start: pb.CalibrateStart, timeout: float) -> pb.CalibrateResponse:
            # An attempt that broke off is made again, so the frames must be there again.
            requests = calibrate_requests(start, kept)
            return self._channel.calibrations.Calibrate(requests, timeout=timeout)

        found = self._channel.call(attempt, start, timeout_s=self._calibrate_timeout_s)
        return calibration_info(found.calibration)

    def calibrations(self) -> list[CalibrationInfo]:
        """Return the calibrations of the service's device, by name."""
        pages = self._channel.pages(
            self._channel.calibrations.ListCalibrations, pb.ListCalibrationsRequest()
        )
        return [calibration_info(message) for page in pages for message in page.calibrations]

    def close(self) -> None:
        """Close the connection; sessions stay as they are."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
