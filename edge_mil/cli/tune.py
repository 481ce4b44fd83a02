"""`edge-mil tune`: measure every backend and precision of this device, and keep the fastest."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from importlib import metadata
from typing import Any

from edge_mil.cli.arguments import Subparsers, add_bundle, add_json, add_state, state_folder
from edge_mil.cli.console import print_table, print_text
from edge_mil.errors import UsageError

PEERS = "edge_mil.peers"
"""Group of entry points: name -> function(bundle, threads) that returns a run, or None.

They are further ways to run the extractor, timed beside ours. The runtime never imports torch; the
exporter may."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `tune` and its arguments."""
    parser = subparsers.add_parser(
        "tune",
        help="measure every backend and precision on this device, keep the fastest in bound",
        description="Open every backend that this device has with every precision of the bundle, "
        "compare its features and slide score with FP32's, time all of them in turn, and keep the "
        "fastest that is within the bundle's fidelity bound for edge-mil serve --backend auto.",
    )
    add_bundle(parser)
    add_state(parser)
    add = parser.add_argument
    add("--threads", type=int, metavar="N", help="threads of one run (default: every core)")
    add("--rounds", type=int, default=8, metavar="N", help="runs of each at most (default: 8)")
    add("--peers", action="store_true", help="time what else is installed beside it, as torch")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure every variant, keep the fastest, and print the table.

    Raises:
        UsageError: A number is not positive, or --peers without one.
        BundleError: The bundle cannot be read, has no extractor, or nothing here can run it.
        StoreError: The tuned variant cannot be written.
    """
    for name in ("threads", "rounds"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; give 1 or more.")
    from edge_mil.backends import ENGINES_FOLDER, open_backend
    from edge_mil.bundle import open_bundle
    from edge_mil.pipeline import load_model
    from edge_mil.pipeline.runners.autotune import tune
    from edge_mil.pipeline.runners.tuned_choice import TunedStore

    state = state_folder(arguments)
    bundle = open_bundle(arguments.bundle)
    peers = _peers(bundle, arguments.threads) if arguments.peers else {}
    backends = functools.partial(
        open_backend, threads=arguments.threads, engines=state / ENGINES_FOLDER
    )
    model = load_model(bundle, threads=arguments.threads)
    try:
        tuning = tune(
            model,
            backends,
            rounds=arguments.rounds,
            peers=peers,
            on_step=lambda name: print(f"edge-mil tune: {name}", file=sys.stderr),
        )
    finally:
        model.close()
    tuned = TunedStore(state).save(bundle, tuning, arguments.threads)
    if arguments.json:
        print(json.dumps(tuned.document))
    else:
        print_tuning(tuned.document)
    return 0


def print_tuning(document: dict[str, Any]) -> None:
    """Print a stored tuning: the measured variants as a table, then why others were not."""
    rows, batches = document["rows"], document["batches"]
    measured = [row for row in rows if row["tile_ms"]]
    base = next((row["tile_ms"] for row in measured if row["name"] == "cpu fp32"), None)
    threads = document["threads"] or f"{document['device']['cores']} (all)"
    print_text(
        f"{document['name']}: {document['extractor']}, threads: {threads}, {document['clock']}, "
        f"the fastest of {document['rounds']} rounds taken in turn. Milliseconds of a tile, and "
        "how many times as fast as FP32 on the CPU:"
    )
    headings = ("", *(f"batch {batch}" for batch in batches), "cosine", "shift", "")
    numbers = range(1, len(headings) - 1)
    print_table([_cells(row, base) for row in measured], headings, numbers)
    print_table([(row["name"], row["reason"]) for row in rows if not row["tile_ms"]])


def _cells(row: dict[str, Any], base: list[float] | None) -> list[str]:
    times = [
        f"{tile_ms:.2f}" + (f" {base[column] / tile_ms:.2f}x" if base else "")
        for column, tile_ms in enumerate(row["tile_ms"])
    ]
    cosine = shift = ""
    if row["check"]:
        moved = row["check"]["score_difference"]
        cosine, shift = f"{row['check']['cosine']:.4f}", "-" if moved is None else f"{moved:.4f}"
    return [row["name"], *times, cosine, shift, "kept" if row["kept"] else row["reason"]]


def _peers(bundle: Any, threads: int | None) -> dict[str, Any]:
    peers = {}
    for point in metadata.entry_points(group=PEERS):
        run = point.load()(bundle, threads)
        if run is not None:
            peers[point.name] = run
    if not peers:
        raise UsageError(
            'Nothing to time beside it is installed (pip install "edge-mil[bench]"), or it does '
            "not know this extractor; leave --peers out."
        )
    return peers
