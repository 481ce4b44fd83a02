"""The stored calibrations of one device, each in a private file under the state directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from edge_mil.calibration.calibration import Calibration, check_name
from edge_mil.errors import CalibrationError, DamagedCalibrationError, StoreError

SUFFIX = ".calibration"
PRIVATE = 0o700
"""Mode of the folder."""


class CalibrationFolder:
    """Keeps calibrations by name.

    A file is one line, "sha256:" and the digest of the rest, then `Calibration.to_bytes`.
    """

    def __init__(self, state: Path) -> None:
        """Name the state directory (`edge-mil serve --state`); it is made by the first `save`."""
        self.root = state / "calibrations"

    def save(self, calibration: Calibration) -> None:
        """Write a calibration in one step; one of the same name is replaced.

        Raises:
            StoreError: The folder cannot be written.
        """
        body = calibration.to_bytes()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        path = self._file(calibration.name)
        temporary = ""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
            # mkstemp makes a file that only its owner reads (0600).
            handle, temporary = tempfile.mkstemp(dir=self.root, suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(digest.encode() + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            raise StoreError(
                f"Calibration {calibration.name} cannot be written to {self.root} ({error}); make "
                "room, or name another --state."
            ) from error

    def load(self, name: str, digest: str = "") -> Calibration:
        """Return a calibration.

        Args:
            name: Its name.
            digest: The digest that it must have; "" for any. A session goes on only with the
                calibration that it began with.

        Raises:
            CalibrationError: There is none of that name, the file was changed, or the digest is
                another.
        """
        path = self._file(check_name(name))
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            names = self.names()
            known = f"there are {', '.join(names)}" if names else "there is none yet"
            raise CalibrationError(
                f"There is no calibration {name!r} in {self.root} ({known}); measure it with "
                f"edge-mil calibrate flat-field FOLDER --name {name}.",
                reason="CALIBRATION_NOT_FOUND",
            ) from error
        except OSError as error:
            raise CalibrationError(f"{path} cannot be read ({error}).") from error
        line, _, body = data.partition(b"\n")
        found = "sha256:" + hashlib.sha256(body).hexdigest()
        if line != found.encode():
            raise DamagedCalibrationError(
                f"{path} is not what was written (its digest is another); measure calibration "
                f"{name} again.",
                reason="CALIBRATION_DAMAGED",
            )
        if digest and digest != found:
            raise CalibrationError(
                f"Calibration {name} was measured anew since the session began (it had "
                f"{digest[:19]}, now {found[:19]}); begin a new session, or put the old file back.",
                reason="CALIBRATION_CHANGED",
                expected=digest,
                found=found,
            )
        calibration = Calibration.from_bytes(body)
        if calibration.name != name:
            raise CalibrationError(
                f"{path} holds calibration {calibration.name!r}; give the file its own name back."
            )
        return calibration

    def find(self, name: str) -> Calibration | None:
        """Return a calibration, None where there is none of that name.

        Raises:
            CalibrationError: It cannot be read.
        """
        return self.load(name) if self._file(check_name(name)).exists() else None

    def names(self) -> list[str]:
        """Return the names of all calibrations, sorted."""
        return sorted(path.name[: -len(SUFFIX)] for path in self.root.glob(f"*{SUFFIX}"))

    def _file(self, name: str) -> Path:
        return self.root / f"{name}{SUFFIX}"
