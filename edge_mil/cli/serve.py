"""`edge-mil serve`: score the fields that clients send, over gRPC."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from edge_mil.cli.arguments import Subparsers, add_state, state_folder
from edge_mil.errors import NotThereYetError, UsageError
from edge_mil.types import RESEARCH_USE_ONLY

DEFAULT_LISTEN = "127.0.0.1:50051"
MAX_IMAGE_PIXELS = 40_000_000
"""Most pixels that OpenCV decodes; the service refuses larger fields before that."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="score the fields that clients send, over gRPC",
        description="Score the fields that clients send over gRPC. Every answer is on the disk "
        "before it is given. " + RESEARCH_USE_ONLY,
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
        help="address of the service, on this machine only (default: %(default)s)",
    )
    add_state(parser)
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "tensorrt"),
        default="auto",
        help="auto (the default) takes TensorRT where there is a GPU and the library, else the "
        "CPU; the service starts on the CPU and changes to the engine when that is verified",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8", "auto"),
        help="fp32, int8, or fp16 with TensorRT; auto takes what edge-mil tune chose for this "
        "device, and measures now where it has not run (default: where the bundle brings INT8 what "
        "edge-mil tune chose, measured now where TensorRT runs; else fp32)",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="fp32, whatever tune chose: a live score is then the batch score of the same tissue "
        "to 1e-4 of its range",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of one network (default: every core)"
    )
    parser.add_argument(
        "--require-passport",
        action="store_true",
        help="refuse sessions whose camera has no passport for the bundle "
        "(edge-mil calibrate camera)",
    )
    parser.add_argument("--viewer", type=int, metavar="PORT", help="not in this release")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        EdgeMilError: A bundle, the address or an option does not fit; the message says which.
    """
    if arguments.viewer is not None:
        raise NotThereYetError(
            "The web viewer is not in this release; leave --viewer out, and use edge-mil stream."
        )
    if arguments.exact and arguments.precision not in (None, "fp32"):
        raise UsageError(
            f"--exact is fp32, and --precision asks for {arguments.precision}; leave one out."
        )
    if arguments.precision == "fp16" and arguments.backend == "cpu":
        raise UsageError("fp16 runs on TensorRT alone; use fp32 or int8 on the CPU.")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads is {arguments.threads}; give 1 or more.")
    # Both are read when the libraries are imported. gRPC's own log repeats our messages.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_IMAGE_PIXELS))
    from edge_mil.service import ServerSettings, run_server
    from edge_mil.service.models.preparation import FITTING

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    settings = ServerSettings(
        bundles=tuple(arguments.bundle),
        state=state_folder(arguments),
        listen=arguments.listen,
        precision="fp32" if arguments.exact else arguments.precision or FITTING,
        threads=arguments.threads,
        backend=arguments.backend,
        require_passport=arguments.require_passport,
    )
    run_server(settings, _print_status)
    return 0


def _print_status(line: str) -> None:
    print(f"edge-mil serve: {line}", file=sys.stderr, flush=True)
