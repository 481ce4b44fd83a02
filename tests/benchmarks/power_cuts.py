"""Cut the power at many moments of a session, and print what became of it.

A real process stores a session under strace. At each moment of its system calls a disk is built
that has what was synced, and a random part of what was written since; then the session is opened.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import repository_path  # noqa: F401 - finds the helpers below
from cut_sessions import CutCheck
from power_cut import WRITER, record, try_cuts
from small_bundle import write_small_bundle

from edge_mil.pipeline import load_model


def main() -> None:
    """Print the table; exit with 1 where something acknowledged was lost, or another score."""
    parser = argparse.ArgumentParser(prog="power_cuts.py", description=__doc__)
    parser.add_argument("--cuts", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--fields", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        work = Path(folder)
        bundle = write_small_bundle(work / "bundle")
        model, state = load_model(bundle, threads=1), work / "state"
        events = record(WRITER, state, work, str(bundle.path), str(arguments.fields))
        check = CutCheck.of(state, model)
        draw = random.Random(arguments.seed)
        outcomes = try_cuts(events, state, arguments.cuts, check, draw)
    print(f"{arguments.fields} fields, {len(events)} system calls")
    print("| after the cut | times |\n| --- | --- |")
    for became, times in sorted(outcomes.items()):
        print(f"| {became} | {times} |")
    if any("WRONG" in became for became in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
