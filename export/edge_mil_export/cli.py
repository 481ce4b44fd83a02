"""`edge-mil-export`: checkpoints to bundles, on a workstation with torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors", "tqdm", "cv2")
"""What `pip install "edge-mil[export]"` brings."""


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one sentence, and never guesses options."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the sentence and end with exit code 2."""
        self.exit(EXIT_MISTAKE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; None takes those of the process.

    Returns:
        Exit code: 0, or 2 for a user's mistake.
    """
    from edge_mil.errors import EdgeMilError

    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except EdgeMilError as error:
        print(f"edge-mil-export: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in PACKAGES:
            raise
        print(
            f"edge-mil-export needs {package}, which is not installed; run: "
            'pip install "edge-mil[export]"',
            file=sys.stderr,
        )
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print("edge-mil-export: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    """Return the parser; commands import torch only when they run."""
    from edge_mil.types import RESEARCH_USE_ONLY
    from edge_mil.version import __version__
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
