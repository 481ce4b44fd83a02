"""`edge-mil bench stream`: the cost of gRPC, of the store and of the size of the bag.

A round runs the bare extractor, the pipeline in process and the pipeline through gRPC on the same
fields, in turn, and the rates are compared within the round. The medians over the rounds count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from edge_mil.backends import BACKENDS, ENGINES_FOLDER
from edge_mil.bundle import Bundle, InputSpec, open_bundle
from edge_mil.cli.arguments import Subparsers, add_json, add_state, state_folder
from edge_mil.cli.bench.folds import CELLS_PER_FIELD, HELD, measure_folds, structured
from edge_mil.cli.console import print_table
from edge_mil.client import Client
from edge_mil.demo.run import BUNDLE
from edge_mil.demo.service_process import ServiceProcess
from edge_mil.errors import BundleError, EngineError, UsageError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.ood.reference import REFERENCE_FILE
from edge_mil.pipeline.runners.tuned_choice import TUNED_FOLDER, TunedStore
from edge_mil.pipeline.runners.variants import RunnerVariant, find_variant
from edge_mil.session import Session
from edge_mil.types import Frame

ROUNDS = 5

SERVED_S, POLL_S = 120.0, 0.1
"""How long the service may take to load an engine that is built already, and to verify it."""

FIELDS = 24
"""Fields of one round."""

FIELD_PX = (768, 1024)
"""Rows and columns of a field: a common camera at half resolution."""

FIELDS_PER_ROW, OVERLAP = 10, 0.1
"""Fields lie side by side, so many to a row, and overlap by this share."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `stream`."""
    line = "measure the cost of the wire, the records and the size of the bag"
    parser = subparsers.add_parser("stream", help=line, description=line)
    parser.add_argument(
        "--bundle", metavar="BUNDLE", default=str(BUNDLE), help="default: the demo's"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="cpu", help="what runs the extractor (default: cpu)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8", "auto"),
        default="fp32",
        help="auto: the backend and precision that edge-mil tune keeps here (default: %(default)s)",
    )
    add_state(parser)
    parser.add_argument(
        "--rounds", type=int, metavar="N", default=ROUNDS, help="default: %(default)s"
    )
    parser.add_argument(
        "--fields",
        type=int,
        metavar="N",
        default=FIELDS,
        help="fields of one round (default: %(default)s)",
    )
    parser.add_argument(
        "--held",
        type=lambda text: tuple(int(n) for n in text.split(",")),
        default=HELD,
        metavar="N,N,...",
        help="sizes of the bag at which a new field is timed (default: 100,10000,100000)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print the tables.

    Raises:
        BundleError: The bundle takes no tiles, or would refuse the fields.
        UsageError: A number is not positive.
    """
    bundle = open_bundle(args.bundle)
    if bundle.manifest.input is None or bundle.manifest.input.instances != "grid":
        raise BundleError(
            f"{bundle.manifest.name} does not cut fields into tiles; name a bundle whose "
            "instances are grid."
        )
    if bundle.has(REFERENCE_FILE):
        raise BundleError(
            f"{bundle.manifest.name} has a reference of its tissue, and the fields of "
            "this command would be refused as out of distribution; name a bundle that was exported "
            "without --calibration."
        )
    if args.rounds < 1 or args.fields < 1 or not args.held or min(args.held) < 1:
        raise UsageError("--rounds, --fields and --held must be 1 or more.")
    state = state_folder(args)
    variant = _variant(bundle, args, state)
    model = load_model(
        bundle,
        backend=variant.backend,
        precision=variant.precision,
        engines=state / ENGINES_FOLDER,
    )
    folds = measure_folds(
        model, _input(model), args.held
    )  # first, while the process has little other memory
    shares, served = _shares(model, variant, args, state)
    measured = {
        "bundle": bundle.digest,
        "precision": model.precision,
        "runs": model.backend,
        "served": served,
        "field_px": list(FIELD_PX[::-1]),
        **shares,
        "folds": [dataclasses.asdict(f) for f in folds],
    }
    if args.json:
        print(json.dumps(measured, indent=2))
        return 0
    print(f"{bundle.manifest.name}, {model.precision}, {model.backend}")
    print(f"fields of {FIELD_PX[1]} x {FIELD_PX[0]} px, {shares['tiles_per_field']:.1f} tiles each")
    rates = (
        ("the extractor alone", "extractor", ""),
        ("the pipeline in this process", "in_process", "of the extractor"),
        ("the pipeline through gRPC", "grpc", "of the one in process"),
    )
    print()
    print_table(
        [
            (
                what,
                f"{shares[name]:.2f}",
                f"{shares[f'{name}_share']:.2f} {compared}" if compared else "",
            )
            for what, name, compared in rates
        ],
        ("what runs", "fields/s", "share"),
        right={1},
    )
    print()
    print_table(
        [
            (
                str(fold.held),
                f"{fold.milliseconds:.2f}",
                f"{fold.milliseconds / folds[0].milliseconds:.2f}",
                f"{fold.memory_mb:.1f}",
            )
            for fold in folds
        ],
        ("instances held", f"ms for a field of {CELLS_PER_FIELD}", "x first", "memory, MB"),
        right=range(4),
    )
    return 0


def _variant(bundle: Bundle, args: argparse.Namespace, state: Path) -> RunnerVariant:
    """Return what is to be measured.

    Raises:
        UsageError: `auto` is asked for, and `tune` has kept nothing here.
        BundleError: The bundle lacks the graph.
    """
    if args.precision != "auto":
        return find_variant(bundle, args.backend, args.precision)
    kept = TunedStore(state).load(bundle)
    if kept is None:
        raise UsageError(
            f"edge-mil tune has kept nothing for {bundle.manifest.name} in {state}; run it first."
        )
    return kept.variant


def _shares(
    model: Model, variant: RunnerVariant, args: argparse.Namespace, state: Path
) -> tuple[dict[str, float], str]:
    """Return the rates of the rounds, and what the service says that it runs.

    Raises:
        EngineError: The service runs another extractor than the one in this process.
    """
    spec = _input(model)
    count = args.fields
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="edge-mil-bench-") as folder:
        # Sessions of its own; the engines, and what tune kept, are those of the device.
        for name in (ENGINES_FOLDER, TUNED_FOLDER):
            (state / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            (Path(folder) / name).symlink_to((state / name).resolve())
        service = ServiceProcess(Path(args.bundle), Path(folder), *_options(variant, args))
        with service, Client(service.address) as client:
            served = _wait_until_served(client, model)
            tiles = 0
            for number in range(args.rounds + 1):
                frames = list(_fields(spec, count, seed=number))
                per_field, seconds = _in_process(model, frames, spec.mpp)
                rates = {"in_process": count / seconds}
                rates["extractor"] = count / _bare(model, spec, per_field)
                rates["grpc"] = count / _through_grpc(client, frames, spec.mpp)
                rates["in_process_share"] = rates["in_process"] / rates["extractor"]
                rates["grpc_share"] = rates["grpc"] / rates["in_process"]
                if number:  # the first round warms up
                    tiles += sum(per_field)
                    rounds.append(rates)
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    return {**medians, "tiles_per_field": tiles / (args.rounds * count)}, served


def _options(variant: RunnerVariant, args: argparse.Namespace) -> tuple[str, ...]:
    """Return the options of a service that runs a variant."""
    if args.precision == "auto":
        return "--backend", "auto", "--precision", "auto"
    if variant.backend not in ("cpu", "tensorrt"):
        raise UsageError(
            f"A service takes {variant.backend} only where edge-mil tune keeps it: --precision "
            "auto."
        )
    return "--backend", variant.backend, "--precision", variant.precision


def _wait_until_served(client: Client, model: Model) -> str:
    """Wait until the service runs what this process runs; return what it says of it."""
    until = time.monotonic() + SERVED_S
    said = ""
    while time.monotonic() < until:
        (info,) = client.models()
        said = f"{info.precision}, {info.detail}"
        if info.precision == model.precision and info.detail.startswith(model.backend):
            return said
        time.sleep(POLL_S)
    raise EngineError(
        f"The service does not run {model.precision}, {model.backend}; it says: {said}."
    )


def _in_process(model: Model, frames: list[Frame], mpp: float) -> tuple[list[int], float]:
    """Return the tiles of each field, and the seconds until all are durable."""
    tiles: list[int] = []
    waiting: list[Future[None]] = []
    with Session(model, mpp) as session:
        started = time.perf_counter()
        for sequence, frame in enumerate(frames, start=1):
            result, durable = session.submit(sequence, frame)
            tiles.append(result.cells_added)
            waiting.append(durable)
        for durable in waiting:
            durable.result()
        return tiles, time.perf_counter() - started


def _bare(model: Model, spec: InputSpec, per_field: list[int]) -> float:
    """Return the seconds of the extractor alone on as many tiles, in the same batches."""
    shape = (spec.tile_height_px, spec.tile_width_px, 3)
    chance = np.random.default_rng(0)
    batches = [chance.integers(0, 256, (n, *shape), np.uint8) for n in per_field]
    started = time.perf_counter()
    for tiles in batches:
        model.extract(tiles)
    return time.perf_counter() - started


def _through_grpc(client: Client, frames: list[Frame], mpp: float) -> float:
    session = client.open_session(mpp=mpp)
    started = time.perf_counter()
    session.send_frames(iter(frames))
    seconds = time.perf_counter() - started
    session.close()
    return seconds


def _fields(spec: InputSpec, count: int, seed: int) -> Iterator[Frame]:
    """Yield fields of one painted area, row by row, so that they agree where they overlap."""
    rows, columns = FIELD_PX
    step_y, step_x = round(rows * (1 - OVERLAP)), round(columns * (1 - OVERLAP))
    height = -(-count // FIELDS_PER_ROW) * step_y + rows
    area = structured((height, FIELDS_PER_ROW * step_x + columns), seed)
    for number in range(count):
        y, x = number // FIELDS_PER_ROW * step_y, number % FIELDS_PER_ROW * step_x
        pixels = np.ascontiguousarray(area[y : y + rows, x : x + columns])
        yield Frame(pixels, (x + columns / 2) * spec.mpp, (y + rows / 2) * spec.mpp)


def _input(model: Model) -> InputSpec:
    assert model.input is not None  # `run` has checked it
    return model.input
