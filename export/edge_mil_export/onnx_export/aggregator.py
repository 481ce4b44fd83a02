"""From an aggregator's checkpoint to the two graphs that a device runs, compared before use."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_mil.backends import open_backend
from edge_mil.bundle import AggregatorSpec, TaskSpec
from edge_mil.errors import BundleError, UsageError
from edge_mil.protocols import Graph
from edge_mil_export.architectures import Head, build_head
from edge_mil_export.checkpoints.reader import load_checkpoint

OPSET = 18
IR_VERSION = 9
"""What opset 18 came with; older ONNX Runtimes on devices read it too."""
TRACED_SIZE = 3
CHECKED_SIZES = (1, 7, 50)
"""Sizes that were not traced: an exporter that bakes the traced one in is found out."""
TOLERANCE = 1e-5
"""Of the largest number of an output. Two float32 matrix products of width 1024, summed in other
orders, differ by some 1e-6 of it."""
SMALLEST_RANGE = 0.1
"""A range is taken as at least this: one instance's single logit may be near 0 by chance, and is
then the rest of larger numbers with their rounding."""
ATTEND_FILE, CLASSIFY_FILE, ARRAYS_FILE = "attend.onnx", "classify.onnx", "aggregator.npz"


@dataclass(frozen=True, slots=True, eq=False)
class ExportedAggregator:
    """A head that is ready to be put into a bundle.

    Attributes:
        spec: Its part of the manifest.
        task: What its outputs mean.
        graphs: File name -> serialised ONNX model, or the bytes of `aggregator.npz`.
        module: The whole head in torch, features (n, d) -> logits (c,), float32: the reference.
        summary: One line of what was read from the checkpoint.
    """

    spec: AggregatorSpec
    task: TaskSpec
    graphs: dict[str, bytes]
    module: nn.Module
    summary: str


def export_aggregator(
    path: Path,
    *,
    arch: str | None = None,
    options: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> ExportedAggregator:
    """Rebuild a head from its checkpoint and export it.

    Args:
        path: A torch file or .safetensors.
        arch: Its architecture; None finds it from the keys.
        options: What the file cannot tell, as `--arch-option` gives it.
        classes: Names of the outputs; None names them "0", "1", ...

    Raises:
        CheckpointError: The file cannot be read.
        ArchitectureError: The architecture is unknown, or the keys do not fit it.
        NotThereYetError: It is one that a later release brings.
        UsageError: An option is missing or wrong, or the classes are not as many as the outputs.
        BundleError: A graph does not agree with the head in torch.
    """
    given = dict(options or {})
    checkpoint = load_checkpoint(path, weights=given.pop("weights", None))
    name, head, complete = build_head(checkpoint.state, arch, given, file=path.name)
    if checkpoint.weights:
        complete["weights"] = checkpoint.weights
    task = _task(head, classes, name)
    graphs: dict[str, bytes] = {}
    roles: dict[str, str] = {}
    if head.has_attend:
        graphs[ATTEND_FILE] = _attend_graph(head)
        roles["attend"] = ATTEND_FILE
    if head.has_classifier:
        graphs[CLASSIFY_FILE] = _classify_graph(head)
        roles["classify"] = CLASSIFY_FILE
    _check(head, graphs)
    if arrays := head.arrays():
        graphs[ARRAYS_FILE] = _packed(arrays)
        roles["arrays"] = ARRAYS_FILE
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
    return ExportedAggregator(spec, task, graphs, head, _summary(spec, task, head))


def parse_options(words: Sequence[str]) -> dict[str, str]:
    """Return the options of repeated `--arch-option K=V`.

    Raises:
        UsageError: One has no =, or two disagree.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise UsageError(f"--arch-option {word} is not NAME=VALUE.")
        if found.setdefault(name, value) != value:
            raise UsageError(f"--arch-option {name} is given twice, as {found[name]} and {value}.")
    return found


def parse_classes(text: str | None) -> list[str] | None:
    """Return the names of `--classes A,B,...`.

    Raises:
        UsageError: A name is empty or there twice.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--classes {text} has an empty name or the same one twice.")
    return names


def _task(head: Head, classes: Sequence[str] | None, name: str) -> TaskSpec:
    outputs = head.output_names or tuple(str(i) for i in range(head.outputs))
    if classes is not None and len(classes) != len(outputs):
        raise UsageError(
            f"--classes names {len(classes)} and {name} has {len(outputs)} "
            f"output{'s' if len(outputs) > 1 else ''}; name one for each."
        )
    probabilities = "sigmoid" if head.sigmoid or len(outputs) == 1 else "softmax"
    if head.kind != "classification":
        probabilities = "none"
    return TaskSpec(head.kind, tuple(classes or outputs), probabilities)


def _summary(spec: AggregatorSpec, task: TaskSpec, head: Head) -> str:
    parts = [f"features of width {spec.feature_dim}", f"{spec.pooling} pooling of {spec.value_dim}"]
    if spec.channels:
        parts.append(f"{spec.channels} channel{'s' if spec.channels > 1 else ''}")
    parts += [text for text in [head.describe()] if text]
    parts += [f"{key}={value}" for key, value in spec.options.items()]
    parts.append(f"{len(task.classes)} output{'s' if len(task.classes) > 1 else ''}")
    return f"{spec.architecture}: {', '.join(parts)} ({task.probabilities})"


class _Attend(nn.Module):
    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, logits, *extra = self.head.attend(features)
        if values is features:
            # An input that is an output as well would lose its name to it.
            values = features.clone()
        return (values, logits, *extra) if _gives_logits(self.head) else (values, *extra)


class _Classify(nn.Module):
    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.head.classify(pooled)


def _attend_graph(head: Head) -> bytes:
    outputs = _outputs(head)
    example = torch.zeros(TRACED_SIZE, head.feature_dim)
    return _export(_Attend(head), "features", example, outputs)


def _gives_logits(head: Head) -> bool:
    return head.channels > 0 and head.logits_in_attend


def _outputs(head: Head) -> list[str]:
    """Return the names of what `attend.onnx` gives."""
    logits = ["attention_logits"] if _gives_logits(head) else []
    return ["values", *logits, *head.extra_outputs]


def _packed(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Return arrays as an .npz, the same bytes for the same arrays."""
    out = io.BytesIO()
    np.savez(out, **dict(arrays))  # type: ignore[arg-type] # its stub takes every name for an option
    return out.getvalue()


def _classify_graph(head: Head) -> bytes:
    example = torch.zeros(TRACED_SIZE, head.pooled_rows, head.value_dim)
    return _export(_Classify(head), "pooled", example, ["logits"])


def _export(module: nn.Module, name: str, example: torch.Tensor, outputs: list[str]) -> bytes:
    """Return a module as an ONNX model, the first axis dynamic."""
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[name],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            # The optimiser folds added constants of 1e-8 and less away (`aggregators.md`, 6).
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise BundleError(f"torch gave no graph for {name}; update torch, and export again.")
    model: Any = program.model_proto
    model.ir_version = IR_VERSION
    _strip(model.graph)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _strip(graph: Any) -> None:
    """Take out what the exporter notes of this machine: source paths and stack traces."""
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own warnings and progress away from the user."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _check(head: Head, graphs: Mapping[str, bytes]) -> None:
    """Compare the graphs with the head in torch at sizes that were not traced.

    Raises:
        BundleError: They differ by more than TOLERANCE.
    """
    runner = open_backend("cpu", threads=1)
    rng = np.random.default_rng(0)
    networks = {name: runner.open(Graph(data, name)) for name, data in graphs.items()}
    for size in CHECKED_SIZES:
        features = rng.standard_normal((size, head.feature_dim)).astype(np.float32)
        pooled = rng.standard_normal((size, head.pooled_rows, head.value_dim))
        single = pooled.astype(np.float32)
        with torch.no_grad():
            wanted = _Attend(head)(torch.from_numpy(features))
        if ATTEND_FILE in networks:
            got = networks[ATTEND_FILE].run({"features": features})
            for name, want in zip(_outputs(head), wanted, strict=True):
                _compare(ATTEND_FILE, size, want, got[name])
        if CLASSIFY_FILE in networks:
            with torch.no_grad():
                scores = head.classify(torch.from_numpy(single))
            found = networks[CLASSIFY_FILE].run({"pooled": single})["logits"]
            _compare(CLASSIFY_FILE, size, scores, found)
    for network in networks.values():
        network.close()


def _compare(name: str, size: int, expected: torch.Tensor, got: np.ndarray[Any, Any]) -> None:
    want = expected.numpy()
    largest = max(float(np.abs(want).max()), SMALLEST_RANGE)
    off = np.inf if want.shape != got.shape else float(np.abs(want - got).max()) / largest
    if not off <= TOLERANCE:
        raise BundleError(
            f"{name} differs from the head in torch by {off:.1e} of the range at {size} instances "
            f"(at most {TOLERANCE:g} is allowed), so no bundle was written; update torch and "
            "onnxruntime, or report the head.",
            size=size,
        )
