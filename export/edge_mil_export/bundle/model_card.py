"""Write `model_card.md`: what a bundle is made from, how it was measured, under which terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_mil.bundle import Manifest
from edge_mil_export.extractors.source import ExtractorSource
from edge_mil_export.onnx_export.head_task import Assumption

LINES = {
    "fp32": "FP32 graph",
    "fp16": "FP16 for TensorRT",
    "int8-cpu": "INT8, cpu dialect",
    "int8-trt": "INT8, trt dialect",
}


def write_card(
    manifest: Manifest,
    summary: str,
    fidelity: dict[str, Any],
    weights: dict[str, str],
    source: ExtractorSource,
    assumed: Sequence[Assumption],
) -> bytes:
    """Return the card of a bundle with an extractor.

    Args:
        manifest: The bundle's.
        summary: One line on the aggregator.
        fidelity: From `Fidelity.document`.
        weights: extractor, aggregator -> the file that the weights came from.
        source: The extractor, with what was read from its file and what was settled beside it.
        assumed: What the head's file does not say and was taken for granted.
    """
    spec, given = manifest.extractor, manifest.input
    assert spec is not None
    assert given is not None
    on = fidelity["measured_on"]
    rows = [
        f"| {LINES[key]} | {figures['score_difference_mean']:.4f} | "
        f"{figures['score_difference_max']:.4f} | {figures['class_flips']} | "
        f"{figures['centred_cosine_min']:.4f} | {figures.get('form', {}).get('name', '')} |"
        for key, figures in fidelity["comparisons"].items()
    ]
    tile = f"{given.tile_width_px}x{given.tile_height_px}"
    passed_on = "yes" if manifest.redistributable else "no, `pack` leaves it out"
    lines = [
        f"# {manifest.name}",
        "",
        manifest.intended_use,
        "",
        "## What it is",
        "",
        f"- Extractor: {spec.name}, features of width {spec.feature_dim}; "
        f"weights: {weights['extractor']}",
        *(f"  - {fact}" for fact in source.facts),
        *([f"  - left out, not needed: {', '.join(source.left_out)}"] if source.left_out else []),
        f"- Aggregator: {summary}; weights: {weights['aggregator']}",
        f"- Instances: {given.instances}, {tile} px at {given.mpp:g} um/px",
        f"- Task: {_task(manifest)}",
        f"- Outputs: {', '.join(manifest.task.classes)} ({manifest.task.probabilities})",
        *_assumed(assumed),
        f"- Written by {manifest.created_by}",
        "",
        "## How near the exported graphs are to the original",
        "",
        f"Against {fidelity['reference']}, on {len(on['bags'])} bags ({on['tiles']} tiles) of "
        f"{on['source']}. The table is about the export, not about how good the model is.",
        "",
        "| graph | score moved, mean | max | class flips | centred cosine, min | form |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        *_robustness_lines(fidelity),
        "## Terms",
        "",
        f"- Extractor: {manifest.licences.extractor}",
        f"- Aggregator: {manifest.licences.aggregator}",
        f"- May the extractor be passed on: {passed_on}",
        "",
        "## Limits",
        "",
        "What it was trained on, its metrics and their limits are not in the checkpoints: ask "
        "their authors, and measure on your own slides before relying on a score.",
        "",
    ]
    return "\n".join(lines).encode()


def _robustness_lines(fidelity: dict[str, Any]) -> list[str]:
    """Return the section on faults of a camera; nothing where they were not measured."""
    faults = fidelity.get("robustness", {})
    if not faults:
        return []
    rows = [
        f"| {name} | {figures['score_difference_mean']:.4f} | "
        f"{figures['score_difference_max']:.4f} | {figures['class_flips']} |"
        for name, figures in faults.items()
    ]
    return [
        "## How far a camera's faults move the score",
        "",
        "Each fault by itself, against the same tiles without it. A camera passport measures what "
        "one camera really does (`edge-mil calibrate camera`).",
        "",
        "| fault | score moved, mean | max | class flips |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]


def write_aggregator_card(
    manifest: Manifest, summary: str, weights: str, assumed: Sequence[Assumption]
) -> bytes:
    """Return the card of a bundle that holds a head alone.

    Args:
        manifest: The bundle's.
        summary: One line on the aggregator.
        weights: The file that the weights came from.
        assumed: What the head's file does not say and was taken for granted.
    """
    taken = "".join(f"{line}\n" for line in _assumed(assumed))
    card = (
        f"# {manifest.name}\n\n"
        f"{manifest.intended_use}\n\n"
        f"- Aggregator only: it scores saved features of width {manifest.aggregator.feature_dim}.\n"
        f"- {summary}\n"
        f"- Task: {_task(manifest)}\n"
        f"- Outputs: {', '.join(manifest.task.classes)}\n"
        f"{taken}"
        f"- Weights: {weights}\n"
        f"- Licence of the weights: {manifest.licences.aggregator}\n"
        f"- Written by {manifest.created_by}\n\n"
        "What it was trained on and how well it does is not in the checkpoint: ask its authors.\n"
    )
    return card.encode()


def _task(manifest: Manifest) -> str:
    task = manifest.task
    reading = manifest.aggregator.options.get("survival", "") if task.kind == "survival" else ""
    labels = task.probabilities == "sigmoid" and len(task.classes) > 1
    more = str(reading) or ("any of the outputs may be true" if labels else "")
    return f"{task.kind} ({more})" if more else task.kind


def _assumed(assumed: Sequence[Assumption]) -> list[str]:
    """Return a line for each thing that nobody stated."""
    return [
        f"- Taken for granted, since neither the checkpoint nor the user said it: {one.name} = "
        f"{one.value} ({one.changes})"
        for one in assumed
    ]
