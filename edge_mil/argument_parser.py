"""What both command lines share: the parser, the exit codes, the sentences for mistakes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from edge_mil.errors import DependencyError, EdgeMilError
from edge_mil.limits import printable_lines

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
EXIT_PIPE_CLOSED = 141
"""128 + SIGPIPE: the reader of our output (`| head`) went away."""


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one sentence, and never guesses options."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the sentence and end with exit code 2."""
        self.exit(EXIT_MISTAKE, f"{self.prog}: {message}; see {self.prog} --help\n")


def run_program(name: str, run: Callable[[], int]) -> int:
    """Run a program and return its exit code; what was foreseen is one sentence on stderr.

    Args:
        name: As the user calls it, "edge-mil".
        run: Parses the arguments and runs the command.

    Returns:
        What `run` returns; 2 for a foreseen error, 130 after Ctrl-C, 141 where the reader of the
        output went away.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An encoding without "µ" must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run()
        sys.stdout.flush()
    except EdgeMilError as error:
        sys.stderr.write(f"{name}: {printable_lines(str(error))}\n")
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    return code


def missing_package(
    error: ModuleNotFoundError, program: str, extra_of: Mapping[str, str]
) -> Exception:
    """Return the error that names the install command; a missing module of ours is a fault.

    Args:
        error: What the import raised.
        program: What needs the package, "edge-mil serve".
        extra_of: Import name -> the extra of edge-mil that installs it.
    """
    name = error.name or ""
    known = next((package for package in extra_of if f"{name}.".startswith(f"{package}.")), None)
    if known is None:
        return error
    return DependencyError(
        f"{program} needs {known}, which is not installed; "
        f'run: pip install "edge-mil[{extra_of[known]}]"',
        package=known,
    )
