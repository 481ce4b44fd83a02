"""`edge-mil-export`: checkpoints to bundles, on a workstation with torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from edge_mil.argument_parser import Parser, missing_package, run_program
from edge_mil.types import RESEARCH_USE_ONLY
from edge_mil.version import __version__

PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors", "tqdm", "cv2")
"""What `pip install "edge-mil[export]"` brings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; None takes those of the process.

    Returns:
        Exit code: 0, 2 for a mistake, 130 after Ctrl-C, 141 where the output's reader went away.
    """
    return run_program("edge-mil-export", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        raise missing_package(error, "this command", dict.fromkeys(PACKAGES, "export")) from error
    return code


def _parser() -> argparse.ArgumentParser:
    """Return the parser; commands import torch only when they run."""
    from edge_mil_export.commands import aggregator as aggregator_command
    from edge_mil_export.commands import audit as audit_command
    from edge_mil_export.commands import bundle as bundle_command

    parser = Parser(
        prog="edge-mil-export",
        description="Turn trained checkpoints into bundles that edge-mil runs on a device. "
        + RESEARCH_USE_ONLY,
        epilog="edge-mil-export COMMAND --help says more about each.",
    )
    parser.add_argument("--version", action="version", version=f"edge-mil-export {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    aggregator_command.add_parser(subparsers)
    bundle_command.add_parser(subparsers)
    audit_command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
