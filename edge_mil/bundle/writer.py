"""Write bundles, folders and packed files; a write that is cut off leaves no broken bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from edge_mil.bundle.manifest import Manifest
from edge_mil.bundle.reader import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Bundle,
    extractor_files,
    open_bundle,
)
from edge_mil.errors import BundleError

SUFFIX = ".milb"
"""Of a bundle that is packed into one file."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""Date of every file in a packed bundle, so that the same bundle packs to the same bytes."""


def check_out(out: Path, *, force: bool) -> None:
    """Check before the long work that an export may write there.

    Args:
        out: A folder or a file.
        force: Whether an earlier bundle there may be replaced.

    Raises:
        BundleError: It is an earlier bundle and `force` was not asked, or something else.
    """
    is_bundle = (out / MANIFEST_FILE).is_file() or (out.is_file() and out.suffix == SUFFIX)
    if is_bundle and not force:
        raise BundleError(
            f"{out} is a bundle already; name another --out, or replace it with --force."
        )
    if not is_bundle and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise BundleError(f"{out} exists and is no bundle; name another --out, or remove it first.")


def write_bundle(manifest: Manifest, files: Mapping[str, bytes], out: str | Path) -> Bundle:
    """Write a folder, replacing an earlier bundle there, and open it.

    Args:
        manifest: Its `files` are replaced by the digests of the given ones.
        files: Name -> bytes of every file but `bundle.json`.
        out: The folder; made when missing.

    Raises:
        BundleError: The folder holds something that is no bundle, or cannot be written.
    """
    out = Path(out)
    if out.is_file():
        raise BundleError(f"{out} is a file; name another --out, or remove it first.")
    check_out(out, force=True)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    made = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        for name, data in files.items():
            (made / name).write_bytes(data)
        (made / MANIFEST_FILE).write_bytes(structs.replace(manifest, files=hashes).to_json())
        bundle = open_bundle(made)
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error.strerror}); name another --out."
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return dataclasses.replace(bundle, path=out)


def pack_bundle(bundle: Bundle, out: str | Path) -> Path:
    """Write the bundle as one uncompressed zip; its digest stays the same.

    Where the extractor may not be passed on (`redistributable` false) its graphs are left out.
    `bundle.json` keeps their digests, so that the receiver can add an own export of the extractor,
    and have it verified.

    Args:
        bundle: From `open_bundle`.
        out: The file; an earlier one is replaced when the new one is complete.

    Raises:
        BundleError: The file cannot be written, or is the bundle itself.
    """
    out = Path(out)
    if out.is_dir() or out.resolve() == bundle.path.resolve():
        raise BundleError(f"{out} is a folder or the bundle itself; name another --out.")
    left_out = set() if bundle.manifest.redistributable else set(extractor_files(bundle.manifest))
    names = sorted(set(bundle.manifest.files) - left_out)
    partial = out.with_name(out.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:

            def add(name: str, data: bytes) -> None:
                archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), data)

            for name in names:
                add(name, bundle.read(name))
            signature = bundle.signature()
            if signature is not None:
                add(SIGNATURE_FILE, signature)
            # Its own bytes: written again they could differ, and with them the digest.
            add(MANIFEST_FILE, bundle.manifest_bytes())
        partial.replace(out)
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error.strerror}); name another --out."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return out
