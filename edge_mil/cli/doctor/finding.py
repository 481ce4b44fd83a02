"""One fact about the device, and where facts come from: packages and programs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

GIB = 1 << 30
TEGRA = Path("/etc/nv_tegra_release")
SAME_LIBRARY = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv")}
"""Package -> other distributions that serve as well, as JetPack's own OpenCV."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the device.

    Attributes:
        section: System, Accelerator, Packages, Storage, Clock or Camera.
        state: ok; info (good to know); warning (works with a fault); missing (the profile needs
            it).
        what: What was found, in one sentence.
        mend: The command or the act that mends it; "" where nothing needs to be done.
    """

    section: str
    state: str
    what: str
    mend: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return asdict(self)


def version_of(name: str) -> str:
    """Return name and version of a package or one that serves as well; "" where none is there."""
    for candidate in (name, *SAME_LIBRARY.get(name, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{candidate} {metadata.version(candidate)}"
    return ""


def output_of(*command: str) -> str:
    """Return what a program prints; "" where it is not installed, or fails."""
    if shutil.which(command[0]) is None:
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return ended.stdout.strip() if ended.returncode == 0 else ""
    return ""
