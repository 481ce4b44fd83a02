"""`edge-mil bundle show|verify|pack|sign`: look at a bundle, check it, hand it on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from edge_mil.bundle import Bundle, InputSpec, Manifest, open_bundle, pack_bundle
from edge_mil.errors import NotThereYetError

SUFFIX = ".milb"
KIB = 1024


def add_parser(subparsers: Any) -> None:
    """Add `bundle` and its four verbs."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bundle",
        help="show, verify or pack a bundle",
        description="Look at a bundle, check it, hand it on. BUNDLE is a folder or a packed .milb. "
        "Every verb verifies all checksums first.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="show|verify|pack|sign", required=True)

    def verb(name: str, line: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(name, help=line, description=line)
        made.add_argument("bundle", metavar="BUNDLE", help="a folder, or a packed .milb")
        return made

    show = verb("show", "Say what the bundle wants, what it gives, and under which terms.")
    verify = verb("verify", "Verify every checksum; exit code 0 when all is in order, else 2.")
    pack = verb(
        "pack",
        "Write the bundle as one .milb file. An extractor that may not be passed on stays behind, "
        "and its digests travel, so that the receiver's own export can take its place.",
    )
    pack.add_argument(
        "--out", metavar="FILE", help="the file; beside the bundle, with .milb, by default"
    )
    for parser_of, run in ((show, run_show), (verify, run_verify), (pack, run_pack)):
        parser_of.add_argument("--json", action="store_true", help="print one JSON document")
        parser_of.set_defaults(run=run)
    verb("sign", "Not in this release.").set_defaults(run=run_sign)


def run_show(arguments: argparse.Namespace) -> int:
    """Print a sentence and a table, or the manifest as JSON."""
    bundle = open_bundle(arguments.bundle)
    if arguments.json:
        document = {"bundle": bundle.digest, "absent": bundle.absent, "manifest": bundle.manifest}
        print(json.dumps(document, default=structs.asdict))
        return 0
    print(sentence(bundle.manifest))
    print()
    rows = list(_rows(bundle))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Verify, and say what was verified."""
    bundle = open_bundle(arguments.bundle)
    verified = len(bundle.manifest.files) - len(bundle.absent)
    if arguments.json:
        print(json.dumps({"bundle": bundle.digest, "verified": verified, "absent": bundle.absent}))
        return 0
    print(f"{bundle.manifest.name} is in order: {verified} files verified, {bundle.digest}")
    if bundle.absent:
        print(
            f"{', '.join(bundle.absent)} stayed behind, since the extractor may not be passed on: "
            "saved features can be scored, images only with your own export of it."
        )
    return 0


def run_pack(arguments: argparse.Namespace) -> int:
    """Pack, and say where the file is."""
    bundle = open_bundle(arguments.bundle)
    source = Path(arguments.bundle).resolve()
    name = source.name if source.is_dir() else source.stem
    out = Path(arguments.out) if arguments.out else source.with_name(name + SUFFIX)
    packed = open_bundle(pack_bundle(bundle, out))
    if arguments.json:
        written = {"bundle": packed.digest, "file": str(out), "absent": packed.absent}
        print(json.dumps(written))
        return 0
    print(f"{out} ({out.stat().st_size / KIB:.0f} KiB, {packed.digest})")
    if packed.absent:
        print(
            f"Without {', '.join(packed.absent)}: the extractor may not be passed on "
            f"({bundle.manifest.licences.extractor or 'its licence is not stated'}). "
            "The receiver puts an own export of it there; edge-mil bundle verify compares."
        )
    return 0


def run_sign(arguments: argparse.Namespace) -> int:
    """Say that signing comes later.

    Raises:
        NotThereYetError: Always.
    """
    del arguments
    raise NotThereYetError(
        "edge-mil bundle sign is not in this release: it will sign bundle.json with Ed25519, and "
        "comes with the durability and security release."
    )


def sentence(manifest: Manifest) -> str:
    """Return what the bundle wants and gives, as one would say it to a colleague."""
    classes = ", ".join(manifest.task.classes)
    task = f"{manifest.task.kind} ({classes})" if classes else manifest.task.kind
    if manifest.input is None:
        wants = f"saved features of width {manifest.aggregator.feature_dim} (it has no extractor)"
    else:
        wants = _wants(manifest.input)
    return f"{manifest.name} {manifest.version}: {task} from {wants}."


def _wants(spec: InputSpec) -> str:
    height, width = spec.tile_height_px, spec.tile_width_px
    size = f"{width} px" if height == width else f"{width} x {height} px"
    um = f"{width * spec.mpp:g} um"
    if height != width:
        um = f"{width * spec.mpp:g} x {height * spec.mpp:g} um"
    what = "tiles of" if spec.instances == "grid" else "whole fields of view brought to"
    normalised = "normalised by the graph itself"
    if spec.mean is not None and spec.std is not None:
        normalised = f"mean {_numbers(spec.mean)} and std {_numbers(spec.std)}"
    stain = "no" if spec.stain is None else spec.stain.method.capitalize()
    cut = f"{what} {size} at {spec.mpp:g} um/px ({um}), {spec.color_order}"
    return f"{cut}, {normalised}, {stain} stain normalisation"


def _passing_on(manifest: Manifest) -> str:
    if manifest.redistributable:
        return "yes"
    return "without the extractor" if manifest.extractor else "ask the author of the weights"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _rows(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest, head = bundle.manifest, bundle.manifest.aggregator
    yield "digest", bundle.digest
    yield "classes", ", ".join(manifest.task.classes) or "none"
    yield "probabilities", manifest.task.probabilities
    if manifest.extractor is not None:
        precisions = ", ".join(sorted(manifest.extractor.graphs))
        yield "extractor", f"{manifest.extractor.name}, width {head.feature_dim}, {precisions}"
        yield "its licence", manifest.licences.extractor or "not stated"
    options = " ".join(f"{name}={value}" for name, value in sorted(head.options.items()))
    yield "aggregator", f"{head.architecture} {options}".strip()
    yield "its kind", f"{head.incremental}, {head.pooling}, {head.channels} attention channels"
    yield "its licence", manifest.licences.aggregator or "not stated"
    yield "may be passed on", _passing_on(manifest)
    yield "intended use", manifest.intended_use
    yield "made by", manifest.created_by or "not stated"
    for name in sorted(manifest.files):
        size = "stayed behind"
        if name not in bundle.absent:
            size = f"{len(bundle.read(name)) / KIB:.0f} KiB"
        yield name, f"{size}, sha256 {manifest.files[name][:12]}"
