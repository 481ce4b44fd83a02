"""`edge-mil serve`: score the fields that clients send, over gRPC."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mil.errors import NotThereYetError, UsageError
from edge_mil.types import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 # has no other name

DEFAULT_LISTEN = "127.0.0.1:50051"
MAX_IMAGE_PIXELS = 40_000_000
"""What the decoder may be made to allocate; the service refuses larger fields by itself."""


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "serve",
        help="score the fields that clients send, over gRPC",
        description="Score the fields that clients send, over gRPC, and keep every answer on the "
        "disk before it is given. " + RESEARCH_USE_ONLY,
    )
    parser.add_argument(
        "--bundle",
        action="append",
        required=True,
        type=Path,
        metavar="BUNDLE",
        help="a bundle's folder or .milb file; may be given more than once",
    )
    parser.add_argument(
        "--listen",
        default=DEFAULT_LISTEN,
        metavar="unix:PATH|HOST:PORT",
        help="where to listen, on this machine only (default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where sessions are kept (default: $XDG_STATE_HOME/edge-mil or "
        "~/.local/state/edge-mil)",
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "tensorrt"),
        default="auto",
        help="auto (the default): TensorRT where a GPU and the library are there, else cpu. The "
        "service starts on the CPU at once, and moves to the engine when it is built and verified",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8", "auto"),
        default="fp32",
        help="fp16 with tensorrt only; an engine that cannot be built falls back to the next; "
        "auto: what edge-mil tune keeps on this device, measured now where it was not yet",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of one run of a network")
    parser.add_argument("--viewer", type=int, metavar="PORT", help="not there yet")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    if arguments.viewer is not None:
        raise NotThereYetError(
            "The web viewer is not there yet: leave --viewer out, and watch with edge-mil stream."
        )
    if arguments.precision == "fp16" and arguments.backend == "cpu":
        raise UsageError("fp16 runs on TensorRT alone; use fp32 or int8 on the CPU.")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads is {arguments.threads}; give 1 or more.")
    # Both are read when the libraries are imported. gRPC's own log repeats what we say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_IMAGE_PIXELS))
    from edge_mil.service import ServerSettings, run_server
    from edge_mil.session import default_state_folder

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    settings = ServerSettings(
        bundles=tuple(arguments.bundle),
        state=arguments.state or default_state_folder(),
        listen=arguments.listen,
        precision=arguments.precision,
        threads=arguments.threads,
        backend=arguments.backend,
    )
    run_server(settings, _tell)
    return 0


def _tell(line: str) -> None:
    print(f"edge-mil serve: {line}", file=sys.stderr, flush=True)
