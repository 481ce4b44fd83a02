"""All sessions of one device, a folder each under the state directory.

It is longer than 300 lines: one class makes and opens every session.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_mil.calibration import VERIFIED, CalibrationFolder
from edge_mil.errors import (
    CalibrationError,
    DamagedStoreError,
    SessionNotFoundError,
    StoreError,
)
from edge_mil.pipeline import Model
from edge_mil.session.catalog_index import IndexRow, SessionIndex
from edge_mil.session.restore import begin, check_opening
from edge_mil.session.session import Session
from edge_mil.session.settings import SessionSettings
from edge_mil.session.stored_fields import BUNDLE_NAME, CREATED, DIGEST, EXPIRED, SETTINGS, STATE
from edge_mil.store import SCHEMA, Committer, SessionFile, SessionReader
from edge_mil.store.connection import publish_folder
from edge_mil.store.faults import damaged, store_error

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
        expired: Whether that was because no field came for its idle timeout.
    """

    session_id: str
    path: Path
    bundle_name: str
    bundle_digest: str
    settings: SessionSettings
    created: float
    closed: bool
    expired: bool = False


@dataclass(frozen=True, slots=True)
class DamagedSession:
    """A session whose file cannot be used.

    Attributes:
        session_id: Its name.
        problem: Why, and what to do; one sentence or two.
    """

    session_id: str
    problem: str


class SessionFolder:
    """Creates, finds and opens sessions; their ids are ULIDs, which sort by time."""

    def __init__(
        self, root: Path, committer: Committer | None = None, *, require_passport: bool = False
    ) -> None:
        """Use a state directory; it is made together with the first session.

        Args:
            root: The state directory.
            committer: Commits for all sessions that are opened here; None: each for itself.
            require_passport: Refuse sessions whose camera is not verified.
        """
        self._committer = committer
        self._require_passport = require_passport
        self._root = root / "sessions"
        self._calibrations = CalibrationFolder(root)
        self._index = SessionIndex(self._root, self.ids, lambda i: _row_of(self.summary(i)))

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
        complete = check_opening(model, settings, calibration)
        self._check_passport(complete)
        # The folder gets its name when the file in it is whole: a session that is there can be
        # opened, whenever the power fails.
        hidden = self._root / f".{session_id}"
        try:
            file = SessionFile(hidden / "session.db", self._committer)
            try:
                begin(model, file, complete, calibration, session_id, time.time())
            finally:
                file.close()
            publish_folder(hidden, self._root / session_id)
        except BaseException as error:
            shutil.rmtree(hidden, ignore_errors=True)
            if isinstance(error, OSError):
                raise store_error(self.file(session_id), error) from error
            raise
        summary = self.summary(session_id)
        with contextlib.suppress(StoreError):  # a cache: the session itself is there
            self._index.put(_row_of(summary))
        return Session(
            model, store=SessionFile(summary.path, self._committer), session_id=session_id
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
        try:
            store = SessionFile(summary.path, self._committer)
            return Session(model, store=store, session_id=session_id)
        except DamagedStoreError as error:
            with contextlib.suppress(StoreError):
                self._index.put(dataclasses.replace(_row_of(summary), problem=str(error)))
            raise

    def refresh(self) -> None:
        """Read the sessions that the index lacks: at the first start all of them.

        Raises:
            StoreError: The state directory cannot be read, or the index not written.
        """
        self._index.refresh()

    def of_request(self, request_id: str) -> str | None:
        """Return the session that a request id opened; None for a new one. `refresh` comes first.

        Raises:
            StoreError: The index cannot be read.
        """
        row = self._index.of_request(request_id)
        if row is None or not self.file(row.session_id).is_file():
            return None
        return row.session_id

    def page(self, before: str = "", count: int = -1) -> list[SessionSummary | DamagedSession]:
        """Return sessions, newest first, damaged ones among them.

        Args:
            before: Only sessions that were opened before this one; "" for all.
            count: How many at most; -1 for all.

        Raises:
            StoreError: The state directory cannot be read.
        """
        try:
            self._index.refresh()
            rows = self._index.rows(before, count)
        except StoreError:  # a full disk, or an archive that is not ours to write in
            ids = sorted((i for i in self.ids() if not before or i < before), reverse=True)
            rows = [self._index.read(i) for i in (ids if count < 0 else ids[:count])]
        return [self._found(row) for row in rows]

    def recovered(self, session_id: str) -> None:
        """Note that a damaged session was recovered, or that its files changed otherwise."""
        self._index.put(_row_of(self.summary(session_id)))

    def ids(self) -> list[str]:
        """Return the ids of all sessions, oldest first.

        Raises:
            StoreError: The state directory cannot be read.
        """
        try:
            return sorted(name for name in os.listdir(self._root) if _ID.fullmatch(name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise store_error(self._root, error) from error

    def _found(self, row: IndexRow) -> SessionSummary | DamagedSession:
        """Return a session of the index; what may have changed since is read from its file."""
        if row.problem:
            return DamagedSession(row.session_id, row.problem)
        try:
            if row.closed:
                summary = _summary_of(row, self.file(row.session_id))
                # Whether it expired is in its file alone.
                if not summary.settings.idle_timeout_s:
                    return summary
            summary = self.summary(row.session_id)
        except (StoreError, SessionNotFoundError) as error:
            return DamagedSession(row.session_id, str(error))
        if summary.closed:
            with contextlib.suppress(StoreError):
                self._index.put(_row_of(summary))
        return summary

    def reader(self, session_id: str) -> SessionReader:
        """Return the session's records; a service may go on writing them.

        The file of an older release is migrated first.

        Raises:
            SessionNotFoundError: There is no such session.
            StoreError: It is of an older edge_mil and open in another process.
        """
        if not self.file(session_id).is_file():
            raise self._not_found(session_id)
        reader = SessionReader(self.file(session_id))
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
        if missing := [
            name for name in (SETTINGS, BUNDLE_NAME, DIGEST, CREATED) if name not in meta
        ]:
            if meta:
                raise damaged(reader.path, f"it lacks {', '.join(missing)}")
            raise SessionNotFoundError(
                f"Session {session_id} was never fully opened: its file holds nothing. Remove the "
                f"folder {reader.path.parent}."
            )
        return SessionSummary(
            session_id=session_id,
            path=reader.path,
            bundle_name=meta[BUNDLE_NAME],
            bundle_digest=meta[DIGEST],
            settings=SessionSettings.from_json(meta[SETTINGS]),
            created=float(meta[CREATED]),
            closed=meta.get(STATE) == "closed",
            expired=EXPIRED in meta,
        )

    def file(self, session_id: str) -> Path:
        """Return where the file of a session is, or would be.

        Raises:
            SessionNotFoundError: The id is none; it must not lead out of the folder.
        """
        if not _ID.fullmatch(session_id):
            raise self._not_found(session_id)
        return self._root / session_id / "session.db"

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

    def _not_found(self, session_id: str) -> SessionNotFoundError:
        return SessionNotFoundError(
            f"There is no session {session_id[:40]!r} in {self._root}; list them with "
            "edge-mil session list."
        )


def new_id() -> str:
    """Return a ULID: 48 bits of milliseconds, 80 random bits, in Crockford's base 32."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def _row_of(summary: SessionSummary) -> IndexRow:
    return IndexRow(
        session_id=summary.session_id,
        request_id=summary.settings.request_id,
        bundle_name=summary.bundle_name,
        bundle_digest=summary.bundle_digest,
        settings=summary.settings.to_json(),
        created=summary.created,
        closed=summary.closed,
    )


def _summary_of(row: IndexRow, path: Path) -> SessionSummary:
    return SessionSummary(
        session_id=row.session_id,
        path=path,
        bundle_name=row.bundle_name,
        bundle_digest=row.bundle_digest,
        settings=SessionSettings.from_json(row.settings),
        created=row.created,
        closed=row.closed,
    )
