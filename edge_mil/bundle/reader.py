"""Open a bundle, a folder or a packed file, and verify the checksum of every file in it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_mil.bundle.arrays import BROKEN
from edge_mil.bundle.bounds import MOST_FILES
from edge_mil.bundle.graph_check import require_self_contained
from edge_mil.bundle.manifest import Manifest
from edge_mil.errors import BundleError
from edge_mil.limits import printable

MANIFEST_FILE = "bundle.json"
SIGNATURE_FILE = "signature"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: The folder, or the `.milb` file.
        manifest: The content of `bundle.json`.
        digest: "sha256:" and 64 hex digits of `bundle.json`'s own bytes.
        absent: Extractor graphs that were left out when the bundle was packed, because their
            licence does not let them be passed on. Empty for a whole bundle.
    """

    path: Path
    manifest: Manifest
    digest: str
    absent: tuple[str, ...] = ()

    def read(self, name: str) -> bytes:
        """Return a file's bytes, verified again: a folder may change while it is open.

        Raises:
            BundleError: The bundle has no such file, or it was changed.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise BundleError(
                f"{self.path.name} has no {name}; this bundle was exported without it."
            )
        if name in self.absent:
            raise BundleError(
                f"{name} did not travel with {self.path.name}, since its licence does not let it "
                "be passed on: saved features can be scored, images cannot. Unzip the bundle, put "
                f"your own export of {self.extractor_name} into the folder as {name} (SHA-256 "
                f"{expected}) and run edge-mil bundle verify.",
                file=name,
                sha256=expected,
            )
        data = _read(self.path, name)
        if hashlib.sha256(data).hexdigest() != expected:
            raise _changed(self.path, name)
        return data

    def read_graph(self, name: str) -> bytes:
        """Return an ONNX file, verified again, whose weights are all its own.

        Raises:
            BundleError: The bundle has no such file, it was changed, or it names other files.
        """
        data = self.read(name)
        require_self_contained(data, f"{name} of {self.path.name}")
        return data

    def manifest_bytes(self) -> bytes:
        """Return the bytes of `bundle.json`, over which the digest is.

        Raises:
            BundleError: It was changed since the bundle was opened.
        """
        data = _read(self.path, MANIFEST_FILE)
        if _digest(data) != self.digest:
            raise _changed(self.path, MANIFEST_FILE)
        return data

    def signature(self) -> bytes | None:
        """Return the signature that travels with the bundle, unchecked; None without one."""
        if SIGNATURE_FILE in _names(self.path):
            return _read(self.path, SIGNATURE_FILE)
        return None

    @property
    def extractor_name(self) -> str:
        """Name of the extractor as it was exported, "timm:resnet18"; "" without one."""
        return self.manifest.extractor.name if self.manifest.extractor else ""

    def has(self, name: str) -> bool:
        """Return whether the manifest lists the file."""
        return name in self.manifest.files


def open_bundle(path: str | Path) -> Bundle:
    """Open and verify a bundle: a folder, or one uncompressed zip of it (`.milb`).

    The extractor's graphs may be absent where the manifest says that they may not be passed on
    (`redistributable` false); those that are there are verified all the same.

    Raises:
        BundleError: It cannot be read, a file is missing, unlisted or was changed, or the
            manifest is not in order.
        BundleVersionError: It was written by a newer edge_mil.
    """
    path = Path(path)
    if not path.name:  # "." and "..": messages name the folder
        path = path.resolve()
    if not path.exists():
        raise BundleError(f"There is no bundle at {path}; check the path, or export one first.")
    if path.is_dir() and not (path / MANIFEST_FILE).is_file():
        raise BundleError(
            f"{path} holds no {MANIFEST_FILE}, so it is no bundle, or its export was cut off; "
            "export it again."
        )
    data = _read(path, MANIFEST_FILE)
    manifest = Manifest.from_json(data)
    present = set(_names(path)) - {MANIFEST_FILE, SIGNATURE_FILE}
    may_be_absent = set() if manifest.redistributable else set(extractor_files(manifest))
    absent = tuple(sorted(may_be_absent & set(manifest.files) - present))
    for name in sorted(set(manifest.files) - set(absent)):
        if name not in present:
            raise BundleError(
                f"{path.name} lacks {name}, which its bundle.json lists; "
                "copy the whole bundle again."
            )
        if hashlib.sha256(_read(path, name)).hexdigest() != manifest.files[name]:
            raise _replaced(path, name) if name in may_be_absent else _changed(path, name)
    for name in sorted(present - set(manifest.files)):
        raise BundleError(
            f"{path.name} holds {name}, which its bundle.json does not list; "
            "remove the file, or copy the bundle again from its source."
        )
    for name in _graphs(manifest):
        if name not in manifest.files:
            raise BundleError(
                f"bundle.json names the graph {name} but no such file; export it again."
            )
    return Bundle(path, manifest, _digest(data), absent)


def extractor_files(manifest: Manifest) -> tuple[str, ...]:
    """Return the files of the extractor's graphs, which may have a licence of their own."""
    return tuple(manifest.extractor.graphs.values()) if manifest.extractor else ()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _graphs(manifest: Manifest) -> Iterator[str]:
    yield from manifest.aggregator.graphs.values()
    yield from extractor_files(manifest)


def _replaced(path: Path, name: str) -> BundleError:
    return BundleError(
        f"{name} of {path.name} is not the file that this bundle was made with: its SHA-256 is not "
        "the one in bundle.json. Export the same extractor again with the versions that "
        "model_card.md names, or ask the bundle's author for the file.",
        file=name,
    )


def _changed(path: Path, name: str) -> BundleError:
    return BundleError(
        f"{name} of {path.name} was changed after its export: its SHA-256 is not the one in "
        "bundle.json. Do not use it; copy the bundle again from its source.",
        file=name,
    )


def _names(path: Path) -> list[str]:
    if path.is_dir():
        files = (p.relative_to(path) for p in path.rglob("*") if p.is_file())
        # Hidden files are those of a file browser, as .DS_Store.
        return [p.as_posix() for p in files if not p.name.startswith(".")]
    with _zip(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/")]
    if len(names) > MOST_FILES + 2 or len(set(names)) < len(names):
        raise BundleError(
            f"{path.name} holds {len(names)} files, some of one name or too many; pack the bundle "
            "again with edge-mil bundle pack."
        )
    return names


def _read(path: Path, name: str) -> bytes:
    if path.is_dir():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise BundleError(f"bundle.json lists {name}, which lies outside of the bundle.")
        try:
            return file.read_bytes()
        except OSError as error:
            raise BundleError(f"{file} cannot be read ({error.strerror}).") from error
    with _zip(path) as archive:
        try:
            entry = archive.getinfo(name)
            if entry.compress_type != zipfile.ZIP_STORED:
                raise BundleError(
                    f"{path.name} is a compressed zip, and a bundle is packed without compression; "
                    "unzip it and use the folder, or pack that with edge-mil bundle pack."
                )
            if entry.file_size != entry.compress_size or entry.file_size > path.stat().st_size:
                raise zipfile.BadZipFile(f"it says that it has {entry.file_size} bytes")
            return archive.read(entry)
        except KeyError:
            raise BundleError(
                f"{path.name} holds no {name}, so it is no edge_mil bundle."
            ) from None
        except BROKEN as error:
            raise BundleError(
                f"{name} of {path.name} cannot be read ({printable(str(error), 200)}); copy it "
                "again."
            ) from error


def _zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except BROKEN as error:
        raise BundleError(
            f"{path} is neither a folder nor a bundle packed by `edge-mil bundle pack` ({error})."
        ) from error
