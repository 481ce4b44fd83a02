"""Rebuild a head from its checkpoint and export it: its part of a bundle, and the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edge_mil.bundle import AggregatorSpec, TaskSpec
from edge_mil_export.architectures import Head, build_head
from edge_mil_export.checkpoints.loading import load_checkpoint
from edge_mil_export.onnx_export.head_graphs import head_files
from edge_mil_export.onnx_export.head_task import (
    Assumption,
    assumed_options,
    possible_tasks,
    survival_reading,
    task_of_head,
)


@dataclass(frozen=True, slots=True, eq=False)
class ExportedAggregator:
    """A head that is ready to be put into a bundle.

    Attributes:
        spec: Its part of the manifest.
        task: What its outputs mean.
        graphs: File name -> serialised ONNX model, or the bytes of `aggregator.npz`.
        module: The whole head in torch, features (n, d) -> logits (c,), float32: the reference.
        summary: One line of what was read from the checkpoint.
        assumed: What the file does not say and nobody named, so that a default was taken.
        needs_positions: Whether it scores only features that come with coordinates.
    """

    spec: AggregatorSpec
    task: TaskSpec
    graphs: dict[str, bytes]
    module: nn.Module
    summary: str
    assumed: tuple[Assumption, ...] = ()
    needs_positions: bool = False


def export_aggregator(
    path: Path,
    *,
    arch: str | None = None,
    options: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    task: str | None = None,
) -> ExportedAggregator:
    """Rebuild a head from its checkpoint and export it.

    Args:
        path: A torch file or .safetensors.
        arch: Its architecture; None finds it from the keys.
        options: What the file cannot tell, as `--arch-option` gives it.
        classes: Names of the outputs; None names them "0", "1", ...
        task: What the outputs mean, as `--task` states it; None: what the head's authors or the
            number of outputs leave no doubt about.

    Raises:
        CheckpointError: The file cannot be read.
        ArchitectureError: The architecture is unknown, or the keys do not fit it.
        NotThereYetError: It is one that a later release brings.
        UsageError: An option or the task is missing or wrong, or the classes are not as many as the
            outputs.
        BundleError: A graph does not agree with the head in torch.
    """
    given = dict(options or {})
    checkpoint = load_checkpoint(path, weights=given.pop("weights", None))
    told = checkpoint.told
    reading = survival_reading(task)
    name, head, complete = build_head(
        checkpoint.state, arch, given, file=path.name, survival=reading, told=told.options
    )
    if task is None and told.task in possible_tasks(head):
        task = told.task
    if classes is None and len(told.classes) == head.outputs:
        classes = told.classes
    assumed = assumed_options(head.options, complete, given)
    if checkpoint.weights:
        complete["weights"] = checkpoint.weights
    stated, of_task = task_of_head(head, name, task, classes)
    if reading:
        complete["survival"] = reading
    files, roles = head_files(head)
    spec = AggregatorSpec(
        architecture=name,
        incremental=head.incremental,
        pooling=head.pooling,
        feature_dim=head.feature_dim,
        value_dim=head.value_dim,
        channels=head.channels,
        options={**complete},
        order=head.order,
        graphs=roles,
    )
    return ExportedAggregator(
        spec,
        stated,
        files,
        head,
        _summary(spec, stated, head),
        (*of_task, *assumed),
        head.needs_positions,
    )


def _summary(spec: AggregatorSpec, task: TaskSpec, head: Head) -> str:
    parts = [f"features of width {spec.feature_dim}", f"{spec.pooling} pooling of {spec.value_dim}"]
    if spec.channels:
        parts.append(f"{spec.channels} channel{'s' if spec.channels > 1 else ''}")
    parts += [text for text in [head.describe()] if text]
    parts += [f"{key}={value}" for key, value in spec.options.items()]
    parts.append(f"{len(task.classes)} output{'s' if len(task.classes) > 1 else ''}")
    means = task.kind if task.probabilities == "none" else f"{task.kind}, {task.probabilities}"
    return f"{spec.architecture}: {', '.join(parts)} ({means})"
