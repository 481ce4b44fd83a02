"""`edge-mil demo`: play the main job from end to end, with nothing but this package."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from edge_mil.cli.arguments import Subparsers, add_insist_mpp
from edge_mil.cli.console import open_console
from edge_mil.errors import UsageError
from edge_mil.types import RESEARCH_USE_ONLY


def add_parser(subparsers: Subparsers) -> None:
    """Add `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="play a slide through a real service and end with a report",
        description="Paint a slide (or take yours), start a service, stream the slide to it field "
        "by field, show the score as it settles, and write the session's report. The last line is "
        "the report's path. The demo's model knows painted tissue only. " + RESEARCH_USE_ONLY,
    )
    add = parser.add_argument
    add("slide", nargs="?", type=Path, metavar="SLIDE", help="a slide file (default: paint one)")
    add("--mpp", type=float, metavar="X", help="pixel size of SLIDE, µm/px (default: its own)")
    add_insist_mpp(parser)
    add("--seed", type=int, metavar="N", help="seed of the painted slide (default: 4)")
    add("--negative", action="store_true", help="paint a slide without foci of atypical nuclei")
    add(
        "--out",
        type=Path,
        default=Path("edge-mil-demo"),
        metavar="DIR",
        help="folder for the report and the painted slide (default: %(default)s)",
    )
    add(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep the session's records in this folder (default: a temporary one)",
    )
    add(
        "--fps",
        type=float,
        metavar="F",
        help="upper limit of fields per second (default: 12 for the painted slide, none for SLIDE)",
    )
    add("--picture", type=Path, metavar="FILE", help="also draw the run as an SVG picture")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play the demo; the last line printed is the report's path.

    Raises:
        EdgeMilError: The slide or an option does not fit; the message says which.
    """
    from edge_mil.demo.readme_picture import write_picture
    from edge_mil.demo.run import DEFAULT_SEED, PAINTED_FPS, DemoOptions, run_demo

    _check(arguments)
    # Both signals end the service of the demo too, in order.
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _interrupt)
    options = DemoOptions(
        slide=arguments.slide,
        mpp=arguments.mpp,
        insist_mpp=arguments.insist_mpp,
        seed=DEFAULT_SEED if arguments.seed is None else arguments.seed,
        positive=not arguments.negative,
        out=arguments.out,
        state=arguments.state,
        fps=arguments.fps or (PAINTED_FPS if arguments.slide is None else None),
    )
    result = run_demo(options, open_console(sys.stdout))
    content = result.content
    if content.score is None:
        print("No cell of tissue was seen whole, so there is no score.")
    else:
        print(RESEARCH_USE_ONLY)
        print(
            f"{content.class_name} {content.score.probabilities[-1]:.3f} from "
            f"{content.score.instances} instances, coverage {content.coverage:.0%}"
        )
    if arguments.picture is not None:
        write_picture(content, arguments.picture)
        print(f"picture {arguments.picture}")
    print(result.report)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.slide is not None and (arguments.seed is not None or arguments.negative):
        raise UsageError("--seed and --negative are for the painted slide; leave SLIDE out.")
    if arguments.slide is None and arguments.mpp is not None:
        raise UsageError("--mpp is the pixel size of a slide file; name the SLIDE too.")
    if arguments.seed is not None and arguments.seed < 0:
        raise UsageError(f"--seed is {arguments.seed}; give 0 or more.")
    if arguments.fps is not None and not arguments.fps > 0:
        raise UsageError(f"--fps must be above 0, got {arguments.fps:g}.")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
