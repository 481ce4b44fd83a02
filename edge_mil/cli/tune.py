"""`edge-mil tune`: measure every backend and precision of this device, and keep the fastest."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_mil.errors import UsageError

PEERS = "edge_mil.peers"
"""Group of entry points: name -> function(bundle, threads) that returns a run, or None.

They are further ways to run the extractor, timed beside ours. The runtime never imports torch; the
exporter may."""


def add_parser(subparsers: Any) -> None:
    """Add `tune` and its arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "tune",
        help="measure every backend and precision on this device, keep the fastest in bound",
        description="Open every backend that this device has with every precision of the bundle, "
        "compare its features and slide score with FP32's, time all of them in turn, and keep the "
        "fastest that is within the bundle's fidelity bound for edge-mil serve --backend auto.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder or .milb file")
    add("--state", type=Path, metavar="DIR", help="where it is kept (default: as edge-mil serve)")
    add("--threads", type=int, metavar="N", help="threads of one run (default: every core)")
    add("--rounds", type=int, default=8, metavar="N", help="runs of each at most (default: 8)")
    add("--peers", action="store_true", help="time what else is installed beside it, as torch")
    add("--json", action="store_true", help="print one JSON document")
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
    from edge_mil.session import default_state_folder

    state = arguments.state or default_state_folder()
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
        print_table(tuned.document)
    return 0


def print_table(document: dict[str, Any]) -> None:
    """Print a stored tuning; ratios are to FP32 on the CPU."""
    rows = document["rows"]
    base = next((r["tile_ms"] for r in rows if r["name"] == "cpu fp32" and r["tile_ms"]), None)
    threads = document["threads"] or f"{document['device']['cores']} (all)"
    batches = document["batches"]
    print(
        f"{document['name']}: {document['extractor']}, threads: {threads}, {document['clock']}, "
        f"the fastest of {document['rounds']} rounds taken in turn"
    )
    heads = "".join(f"{f'batch {batch}':>18}" for batch in batches)
    print(f"  {'':24}{heads}{'cosine':>9}{'score moves':>13}")
    for row in rows:
        if not row["tile_ms"]:
            print(f"  {row['name']:24}  {row['reason']}")
            continue
        cells = ""
        for column, tile_ms in enumerate(row["tile_ms"]):
            ratio = f"{base[column] / tile_ms:.2f}x" if base else ""
            cells += f"{f'{tile_ms:.2f} ms {ratio:>6}':>18}"
        check = row["check"]
        agreement = f"{'':22}"
        if check:
            moved = check["score_difference"]
            agreement = f"{check['cosine']:9.4f}{'-' if moved is None else f'{moved:.4f}':>13}"
        last = "  kept" if row["kept"] else f"  {row['reason']}" if row["reason"] else ""
        print(f"  {row['name']:24}{cells}{agreement}{last}")


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
