"""All sessions of one device, a folder each under the state directory."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_mil.calibration import VERIFIED, CalibrationFolder
from edge_mil.errors import CalibrationError, SessionNotFoundError
from edge_mil.pipeline import Model
from edge_mil.session.restore import check_opening
from edge_mil.session.session import Session
from edge_mil.session.settings import SessionSettings
from edge_mil.session.stored_fields import BUNDLE_NAME, CREATED, DIGEST, SETTINGS, STATE
from edge_mil.store import SCHEMA, SessionFile, SessionReader

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID = re.compile(f"[{_CROCKFORD}]{{26}}")


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a session's file states, without its bundle.

    Attributes:
        session_id: Its name.
        path: Its file.
        bundle_name: Name of the bundle that it was opened with.
        bundle_digest: Digest of the same.
        settings: What it was opened with.
        created: Seconds since the epoch.
        closed: Whether it was closed.
    """

    session_id: str
    path: Path
    bundle_name: str
    bundle_digest: str
    settings: SessionSettings
    created: float
    closed: bool


class SessionFolder:
    """Creates, finds and opens sessions; their ids are ULIDs, which sort by time."""

    def __init__(self, root: Path, *, require_passport: bool = False) -> None:
        """Use a state directory; it is made together with the first session.

        Args:
            root: The state directory.
            require_passport: Refuse sessions whose camera is not verified.
        """
        self._require_passport = require_passport
        self._root = root / "sessions"
        self._calibrations = CalibrationFolder(root)

    def create(self, model: Model, settings: SessionSettings) -> Session:
        """Open a new session.

        Raises:
            StoreError: It cannot be written.
            PixelSizeError: The pixel size does not fit the bundle.
            CalibrationError: There is no such calibration, it is stale or of other optics, or it
                lacks what the bundle needs; or its camera is not verified, and must be.
        """
        session_id = new_id()
        calibration = None
        if settings.calibration_id:
            name, digest = settings.calibration_id, settings.calibration_digest
            calibration = self._calibrations.load(name, digest)
        # Checked before anything is written: a refused opening leaves no file behind.
        opened = check_opening(model, settings, calibration)
        self._check_passport(opened)
        return Session(
            model,
            settings=settings,
            calibration=calibration,
            store=SessionFile(self._file(session_id)),
            session_id=session_id,
        )

    def open(self, session_id: str, models: Callable[[str], Model]) -> Session:
        """Open a session that exists.

        Args:
            session_id: Its id.
            models: Returns the loaded model for a bundle's digest, or raises.

        Raises:
            SessionNotFoundError: There is none.
            StoreError: It cannot be read, or another process has it.
            CalibrationError: It is open, its camera is not verified, and must be.
        """
        summary = self.summary(session_id)
        if not summary.closed:
            self._check_passport(summary.settings)
        model = models(summary.bundle_digest)
        return Session(model, store=SessionFile(summary.path), session_id=session_id)

    def ids(self) -> list[str]:
        """Return the ids of all sessions, oldest first."""
        if not self._root.is_dir():
            return []
        found = (p.name for p in self._root.iterdir() if (p / "session.db").is_file())
        return sorted(name for name in found if _ID.fullmatch(name))

    def reader(self, session_id: str) -> SessionReader:
        """Return the session's records; a service may go on writing them.

        The file of an older release is migrated first.

        Raises:
            SessionNotFoundError: There is no such session.
            StoreError: It is of an older edge_mil and open in another process.
        """
        # An id comes from outside; it must not lead out of the folder.
        if not _ID.fullmatch(session_id) or not self._file(session_id).is_file():
            raise SessionNotFoundError(
                f"There is no session {session_id[:40]!r} in {self._root}; list them with "
                "edge-mil session list."
            )
        reader = SessionReader(self._file(session_id))
        if reader.schema_version() < len(SCHEMA):
            SessionFile(reader.path).close()
        return reader

    def summary(self, session_id: str) -> SessionSummary:
        """Return what a session's file states.

        Raises:
            SessionNotFoundError: There is no such session.
            StoreError: Its file cannot be read.
        """
        reader = self.reader(session_id)
        meta = reader.meta()
        if SETTINGS not in meta:
            raise SessionNotFoundError(f"Session {session_id} was never fully opened.")
        return SessionSummary(
            session_id=session_id,
            path=reader.path,
            bundle_name=meta[BUNDLE_NAME],
            bundle_digest=meta[DIGEST],
            settings=SessionSettings.from_json(meta[SETTINGS]),
            created=float(meta[CREATED]),
            closed=meta.get(STATE) == "closed",
        )

    def _check_passport(self, settings: SessionSettings) -> None:
        """Check that the camera of a session that takes fields is verified, where it must be.

        Raises:
            CalibrationError: It is not.
        """
        if self._require_passport and settings.camera != VERIFIED:
            raise CalibrationError(
                f"This service takes only verified cameras (--require-passport). "
                f"{settings.camera_note or 'This session began without a passport.'}",
                reason="PASSPORT_REQUIRED",
            )

    def _file(self, session_id: str) -> Path:
        return self._root / session_id / "session.db"


def new_id() -> str:
    """Return a ULID: 48 bits of milliseconds, 80 random bits, in Crockford's base 32."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))
