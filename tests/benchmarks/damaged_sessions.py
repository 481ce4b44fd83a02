"""Damage a stored session at random, many times, and print what became of it.

Each time a bit, a byte, a sector or a page of the session's file changes, or its end is cut off.
Then the session is opened and asked everything; where it tells of the damage it is recovered.
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import tempfile
import traceback
from pathlib import Path

import repository_path  # noqa: F401 - finds the helper below
from damage import damage, outcome, store_session


def main() -> None:
    """Print the table; exit with 1 where a score was wrong in silence."""
    parser = argparse.ArgumentParser(prog="damaged_sessions.py", description=__doc__)
    parser.add_argument("--damages", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        stored = store_session(Path(work))
        for at in range(arguments.damages):
            folder = Path(work) / "damaged"
            shutil.copytree(stored.folder, folder)
            where = damage(folder / "sessions" / stored.session_id / "session.db", draw)
            try:
                became = outcome(stored, folder)
            except Exception:
                became = "WRONG: traceback"
                traceback.print_exc()
            if "WRONG" in became:
                print(f"damage {at}, {where}: {became}", flush=True)
            counts[where.split(" at ")[0], became] += 1
            shutil.rmtree(folder)
    kinds = sorted({kind for kind, _ in counts})
    print("| | " + " | ".join(kinds) + " | all |\n| --- |" + " --- |" * (len(kinds) + 1))
    for became in sorted({became for _, became in counts}):
        row = [counts[kind, became] for kind in kinds]
        print(f"| {became} | " + " | ".join(map(str, [*row, sum(row)])) + " |")
    if any("WRONG" in became for _, became in counts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
