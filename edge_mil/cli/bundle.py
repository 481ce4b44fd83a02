"""`edge-mil bundle show|verify|pack|sign`: look at a bundle, check it, pass it on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from edge_mil.bundle import Bundle, InputSpec, Manifest, check_out, open_bundle, pack_bundle
from edge_mil.cli.arguments import Subparsers, add_bundle, add_json
from edge_mil.cli.console import print_table
from edge_mil.errors import NotThereYetError

SUFFIX = ".milb"
KIB = 1024


def add_parser(subparsers: Subparsers) -> None:
    """Add `bundle` and its four verbs."""
    parser = subparsers.add_parser(
        "bundle",
        help="show, verify or pack a bundle",
        description="Show, verify or pack a bundle. Every verb first verifies all checksums.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="show|verify|pack|sign", required=True)
    show = verbs.add_parser(
        "show",
        help="show what the bundle takes and gives, and its licences",
        description="Show what the bundle takes, what it gives, and under which licences.",
    )
    verify = verbs.add_parser(
        "verify",
        help="verify every checksum",
        description="Verify every checksum. Exit code 0 when all files are in order, else 2.",
    )
    pack = verbs.add_parser(
        "pack",
        help="write the bundle as one .milb file",
        description="Write the bundle as one .milb file. Where the licence does not allow the "
        "extractor to be passed on, its graphs stay out and only their digests are kept, so that "
        "the receiver can put an export of their own in their place.",
    )
    pack.add_argument(
        "--out", metavar="FILE", help="the file to write (default: beside the bundle, as .milb)"
    )
    pack.add_argument("--force", action="store_true", help="replace a file that is there already")
    sign = verbs.add_parser(
        "sign", help="not in this release", description="Sign a bundle: not in this release."
    )
    for verb, run in ((show, run_show), (verify, run_verify), (pack, run_pack), (sign, run_sign)):
        add_bundle(verb)
        if verb is not sign:
            add_json(verb)
        verb.set_defaults(run=run)


def run_show(arguments: argparse.Namespace) -> int:
    """Print a sentence and a table, or the manifest as JSON."""
    bundle = open_bundle(arguments.bundle)
    if arguments.json:
        document = {"bundle": bundle.digest, "absent": bundle.absent, "manifest": bundle.manifest}
        print(json.dumps(document, default=structs.asdict))
        return 0
    print(sentence(bundle.manifest) + "\n")
    print_table(list(_rows(bundle)))
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Verify the checksums and print how many there were."""
    bundle = open_bundle(arguments.bundle)
    verified = len(bundle.manifest.files) - len(bundle.absent)
    if arguments.json:
        print(json.dumps({"bundle": bundle.digest, "verified": verified, "absent": bundle.absent}))
        return 0
    print(f"{bundle.manifest.name} is in order: {verified} files verified, {bundle.digest}")
    if bundle.absent:
        print(
            f"{', '.join(bundle.absent)} stayed behind, since the extractor may not be passed on. "
            "The bundle scores saved features; to score images, add your own export of the "
            "extractor."
        )
    return 0


def run_pack(arguments: argparse.Namespace) -> int:
    """Pack the bundle and print where the file is."""
    bundle = open_bundle(arguments.bundle)
    source = Path(arguments.bundle).resolve()
    name = source.name if source.is_dir() else source.stem
    out = Path(arguments.out) if arguments.out else source.with_name(name + SUFFIX)
    check_out(out, force=arguments.force)
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
            "The receiver adds an own export of it; edge-mil bundle verify compares the digests."
        )
    return 0


def run_sign(arguments: argparse.Namespace) -> int:
    """Refuse: signing comes later.

    Raises:
        NotThereYetError: Always.
    """
    del arguments
    raise NotThereYetError(
        "edge-mil bundle sign is not in this release: it will sign bundle.json with Ed25519, and "
        "comes with the durability and security release."
    )


def sentence(manifest: Manifest) -> str:
    """Return what the bundle takes and gives, as one sentence."""
    classes = ", ".join(manifest.task.classes)
    task = f"{manifest.task.kind} ({classes})" if classes else manifest.task.kind
    if manifest.input is None:
        taken = f"saved features of width {manifest.aggregator.feature_dim} (it has no extractor)"
    else:
        taken = _input_words(manifest.input)
    return f"{manifest.name} {manifest.version}: {task} from {taken}."


def _input_words(spec: InputSpec) -> str:
    height, width = spec.tile_height_px, spec.tile_width_px
    if height == width:
        size, um = f"{width} px", f"{width * spec.mpp:g} µm"
    else:
        size, um = f"{width} x {height} px", f"{width * spec.mpp:g} x {height * spec.mpp:g} µm"
    what = "tiles of" if spec.instances == "grid" else "whole fields of view brought to"
    normalised = "normalised by the graph itself"
    if spec.mean is not None and spec.std is not None:
        normalised = f"mean {_numbers(spec.mean)} and std {_numbers(spec.std)}"
    stain = "no" if spec.stain is None else spec.stain.method.capitalize()
    return (
        f"{what} {size} at {spec.mpp:g} µm/px ({um}), {spec.color_order}, {normalised}, "
        f"{stain} stain normalisation"
    )


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


def _passing_on(manifest: Manifest) -> str:
    if manifest.redistributable:
        return "yes"
    return "without the extractor" if manifest.extractor else "ask the author of the weights"
