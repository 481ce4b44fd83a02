"""`edge-mil score`: score saved features as a live run would."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.cli.arguments import Subparsers, add_bundle, add_json
from edge_mil.cli.console import print_table
from edge_mil.errors import InvalidFeaturesError
from edge_mil.pipeline import load_model
from edge_mil.pipeline.saved_features.reader import FeaturesFile, read_features
from edge_mil.pipeline.saved_features.replay import Replay, arrival, read_operations
from edge_mil.types import RESEARCH_USE_ONLY, SlideScore

COLUMN_HEADINGS = {
    "probabilities": "probability",
    "hazards": "hazard",
    "survival": "survival",
}
"""Numbers of a score -> heading of their column."""
FILE_SUFFIXES = re.compile(r"\.(onnx|pt|pth|ts|torchscript)$")


def add_parser(subparsers: Subparsers) -> None:
    """Add `score`."""
    parser = subparsers.add_parser(
        "score",
        help="score saved features",
        description="Score a bag of saved features: an .npz file with an array `features` (N, D), "
        "an .h5 file as TRIDENT, CLAM or STAMP write it, or a .pt file with one tensor. "
        + RESEARCH_USE_ONLY,
    )
    add_bundle(parser)
    parser.add_argument("features", metavar="FEATURES", type=Path, help="a file of features")
    parser.add_argument(
        "--stream",
        type=_positive,
        metavar="K",
        help="add K instances at a time, as a live session does (default: all at once)",
    )
    parser.add_argument(
        "--shuffle",
        type=_seed,
        metavar="SEED",
        help="add the instances in a random order drawn from this seed",
    )
    parser.add_argument(
        "--operations",
        type=Path,
        metavar="OPS.json",
        help="add, replace and remove the fields that this file lists, with a score after each",
    )
    parser.add_argument(
        "--attention", action="store_true", help="also print the attention of each instance"
    )
    parser.add_argument(
        "--backend",
        default="cpu",
        help="cpu or tensorrt (default: cpu); aggregators run on the CPU either way",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score the features and print the result.

    Raises:
        EdgeMilError: The bundle, the features or an option does not fit; the message says which.
    """
    bundle = open_bundle(arguments.bundle)
    saved = read_features(arguments.features)
    _check_encoder(saved, bundle, arguments.features.name)
    rows = len(saved.features)
    operations = read_operations(arguments.operations, rows) if arguments.operations else None
    model = load_model(bundle, backend=arguments.backend, extractor=False)
    try:
        replay = Replay(
            model,
            saved.features,
            step=arguments.stream,
            positions=saved.positions,
            groups=saved.group,
        )
        scores: list[SlideScore | None] | None = None
        if operations is None:
            replay.stream(arrival(rows, arguments.shuffle))
        else:
            scores = []
            for operation in operations:
                replay.apply(operation)
                scores.append(replay.score())
        score = replay.score()
        attention = replay.attention() if arguments.attention else None
    finally:
        model.close()
    document: dict[str, Any] = {
        "score": _as_json(score),
        "instances": replay.instances,
        "bundle": bundle.digest,
        "notice": RESEARCH_USE_ONLY,
    }
    if attention is not None:
        document["attention"] = attention
    if scores is not None:
        document["scores"] = [_as_json(one) for one in scores]
    if arguments.json:
        print(json.dumps(document))
    else:
        _print(bundle, arguments.features.name, replay.instances, score)
        _print_more(document, scores)
    return 0


def _as_json(score: SlideScore | None) -> dict[str, object] | None:
    return score.as_json() if score else None


def _print(bundle: Bundle, name: str, instances: int, score: SlideScore | None) -> None:
    print(f"{name}, {instances} instances, by {bundle.manifest.name} ({bundle.digest[:19]})")
    if score is None:
        few = "fewer instances than the head needs" if instances else "no instance"
        print(f"No score yet: the bag holds {few}.")
    elif score.pooled:
        print(f"{len(score.pooled)} pooled numbers; no classifier follows (--json prints them).")
    elif bundle.manifest.task.kind == "regression":
        print(f"{score.classes[0]}  {score.value:.4f}")
    else:
        if score.value is not None:
            print(f"risk {score.value:.4f}")
        columns = [score.classes, _digits(score.logits)]
        headings = ["interval" if score.hazards else "class", "logit"]
        for heading in ("probabilities", "hazards", "survival"):
            if numbers := getattr(score, heading):
                columns.append(_digits(numbers))
                headings.append(COLUMN_HEADINGS[heading])
        print_table(list(zip(*columns, strict=True)), headings, right={1, 2, 3})
    print(RESEARCH_USE_ONLY)


def _digits(numbers: Sequence[float]) -> list[str]:
    return [f"{number:.4f}" for number in numbers]


def _print_more(document: dict[str, Any], scores: list[SlideScore | None] | None) -> None:
    """Print the score after each operation, and the largest attention of each channel."""
    for at, score in enumerate(scores or ()):
        outputs = (score.logits or score.pooled) if score else ()
        logits = ", ".join(f"{x:.4f}" for x in outputs) or "no score"
        held = score.instances if score else 0
        print(f"after operation {at}: {held} instances, logits {logits}")
    for channel, weights in enumerate(document.get("attention", ())):
        top = sorted(range(len(weights)), key=lambda i: -weights[i])[:5]
        most = ", ".join(f"{i}: {weights[i]:.4f}" for i in top)
        print(f"attention of channel {channel}, largest by row: {most or 'none'}")


def _check_encoder(saved: FeaturesFile, bundle: Bundle, name: str) -> None:
    """Refuse features of another extractor than the bundle's, where both are named.

    Raises:
        InvalidFeaturesError: The names differ.
    """
    extractor = bundle.manifest.extractor
    if not saved.encoder or extractor is None:
        return
    if _encoder(saved.encoder) != _encoder(extractor.name):
        raise InvalidFeaturesError(
            f"{name} was made by the encoder {saved.encoder} and {bundle.manifest.name} takes "
            f"features of {extractor.name}; extract them again, or name the bundle that fits.",
            encoder=saved.encoder,
            extractor=extractor.name,
        )


def _encoder(name: str) -> str:
    """Return an encoder's name without "timm:", folder, suffix, case and pretrained tag."""
    bare = name.rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower()
    bare = FILE_SUFFIXES.sub("", bare).split(".")[0]
    return bare.replace("-", "_")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number
