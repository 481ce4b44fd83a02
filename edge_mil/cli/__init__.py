"""`edge-mil`: import the command that was named, run it, print an expected error as one sentence.

Each command is a module or folder with its name and an `add_parser`; `arguments` and `console` are
shared by them.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from edge_mil import argument_parser
from edge_mil.argument_parser import Parser, run_program
from edge_mil.types import RESEARCH_USE_ONLY
from edge_mil.version import __version__

COMMANDS = {
    "demo": "play a slide through a real service and end with a report",
    "serve": "score the fields that clients send, over gRPC",
    "stream": "play a slide, or a folder of images, to a service as a camera would",
    "slide": "score a whole slide file offline: the reference for a live run",
    "score": "score saved features",
    "bundle": "show, verify or pack a bundle",
    "calibrate": "measure flat field, white balance, pixel size, gates and stain of a microscope",
    "judge": "judge each image of a folder alone: its verdict, with numbers",
    "session": "list, show, report on or export the sessions of a service",
    "engine": "build, list and clear TensorRT engines",
    "tune": "measure every backend and precision on this device, keep the fastest in bound",
    "doctor": "say what this device can run, what is missing, and the command that mends it",
    "heads": "list the aggregators: paper, incremental class, costs, audit",
    "bench": "measure this machine; without a name, list the benchmarks",
}
"""Command -> its line in the list of commands."""

PACKAGES = {
    "cv2": "device",
    "onnxruntime": "device",
    "openslide": "device",
    "h5py": "device",
    "jinja2": "device",
    "msgspec": "device",
    "platformdirs": "device",
    "rfc8785": "device",
    "rich": "device",
    "tifffile": "device",
    "grpc_health": "device",
    "grpc_reflection": "device",
    "grpc_status": "device",
    "google.rpc": "device",
    "edge_mil_export": "export",
    "torch": "export",
    "timm": "export",
    "onnx": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "tqdm": "export",
    "openvino": "openvino",
    "tensorrt_rtx": "tensorrt-rtx",
    "pycuda": "tensorrt",
}
"""Import name of a package -> the extra of edge-mil that installs it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; None takes those of the process.

    Returns:
        Exit code: 0, 2 for a mistake, 130 after Ctrl-C, 141 where the output's reader went away.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return run_program("edge-mil", lambda: _run(words))


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), "")
    parser = _parser(command)
    if not words:
        parser.print_help()
        return 0
    try:
        arguments = parser.parse_args(words)
        code: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        raise missing_package(error, command) from error
    return code


def _parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser that knows every command's name, and the chosen one's arguments."""
    parser = Parser(
        prog="edge-mil",
        description="Live slide-level scores beside the microscope. " + RESEARCH_USE_ONLY,
        epilog="edge-mil COMMAND --help says more about a command. edge-mil-export makes a bundle "
        "of a trained model.",
    )
    parser.add_argument("--version", action="version", version=f"edge-mil {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        if name == chosen:
            try:
                module = importlib.import_module(f"edge_mil.cli.{name}")
            except ModuleNotFoundError as error:
                raise missing_package(error, name) from error
            module.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=line)
    return parser


def missing_package(error: ModuleNotFoundError, command: str) -> Exception:
    """Return the error that names the install command of what a command lacks."""
    return argument_parser.missing_package(error, f"edge-mil {command}", PACKAGES)
