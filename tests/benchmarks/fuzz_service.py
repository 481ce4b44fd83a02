"""Hostile messages to every call of a real service: the table "Fuzzing" of docs/reliability.md.

Messages are made from the descriptors of the `.proto`, by changing usual ones, and from random
bytes. Statuses that the service did not foresee, and calls that hang, are counted apart; the first
of them are printed, and the exit code is then 1.

usage: python tests/benchmarks/fuzz_service.py [--cases 200000] [--seed 1] [--checkout FOLDER]
       15 minutes on two cores for 200 000 cases
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import repository_path  # noqa: F401 - finds the helpers of the tests
from hostile_calls import UNFORESEEN, HostileCalls, Tally, peak_memory_mb
from hostile_messages import KINDS
from running_service import ROOT, RunningService
from small_bundle import write_small_bundle

CLIENTS = 4


def attack(service: RunningService, cases: int, seed: int) -> Tally:
    """Make calls from several clients at once; return how they ended."""
    tally, lock = Tally(), threading.Lock()

    def work(client: int) -> None:
        with service.channel as channel:
            calls = HostileCalls(channel, seed * CLIENTS + client)
            for _ in range(cases // CLIENTS):
                case = calls.next()
                with lock:
                    tally.add(case)

    with ThreadPoolExecutor(CLIENTS) as clients:
        for done in [clients.submit(work, client) for client in range(CLIENTS)]:
            done.result()
    return tally


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose service is attacked")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_small_bundle(Path(folder) / "small").path
        service = RunningService(bundle, Path(folder), checkout=options.checkout.resolve())
        began = time.monotonic()
        tally = attack(service, options.cases, options.seed)
        took = time.monotonic() - began
        peak = peak_memory_mb(service.process.pid)
        tracebacks = sum("Traceback" in line for line in service.all_lines())
        code = service.stop()
    heads = [*KINDS, *UNFORESEEN]
    print(f"| call | {' | '.join(heads)} | else |\n| --- |{' --- |' * (len(heads) + 1)}")
    print("\n".join(tally.rows()))
    total = sum(tally.counts.values())
    print(f"\n{total} cases in {took:.0f} s, {peak:.0f} MB at most, {tracebacks} tracebacks in the "
          f"log, exit code {code}")  # fmt: skip
    for case in tally.unforeseen:
        print(case.method, case.kind, case.status, [data.hex()[:400] for data in case.sent])
    raise SystemExit(1 if tally.unforeseen or tracebacks or code else 0)


if __name__ == "__main__":
    main()
