"""Arguments that several commands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from edge_mil.errors import SourceError

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 # has no public name
"""What a command's `add_parser` adds its parser to."""


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add BUNDLE, which is read by `edge_mil.bundle.open_bundle`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder or .milb file")


def add_insist_mpp(parser: argparse.ArgumentParser) -> None:
    """Add --insist-mpp, which belongs to --mpp."""
    parser.add_argument(
        "--insist-mpp",
        action="store_true",
        help="take --mpp also where the slide's file, or the optics, say more than 5 %% else",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on standard output"
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add --state; `state_folder` reads it."""
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="state directory of the service, which holds sessions, calibrations and engines "
        "(default: $XDG_STATE_HOME/edge-mil, or ~/.local/state/edge-mil)",
    )


def state_folder(arguments: argparse.Namespace) -> Path:
    """Return the state directory that --state names, or the user's own."""
    from edge_mil.state_directory import default_state_folder

    return arguments.state or default_state_folder()


def image_names(folder: Path) -> list[str]:
    """Return the images of a folder and its subfolders by their path inside of it, sorted.

    Raises:
        SourceError: It is no folder, or holds no images.
    """
    from edge_mil.cameras.image_folder import SUFFIXES

    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; give a folder of images.", folder=folder)
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not names:
        raise SourceError(
            f"{folder} holds no images; give a folder of png, jpg, tif or bmp files.",
            folder=folder,
        )
    return names
