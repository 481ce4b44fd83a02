"""A bundle that runs: its graphs loaded into a backend, its pooling beside them."""

from __future__ import annotations

import functools
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.aggregators import Classifier, Parts, build_aggregator
from edge_mil.backends import BACKENDS, open_backend
from edge_mil.bundle import Bundle, InputSpec
from edge_mil.errors import (
    BundleError,
    InvalidFeaturesError,
    InvalidInstancesError,
    UsageError,
)
from edge_mil.pipeline.ood.reference import Reference
from edge_mil.pipeline.runners.runner import Extractor, Runner
from edge_mil.pipeline.runners.variants import find_variant, open_variant
from edge_mil.protocols import Aggregator, Network
from edge_mil.types import Float32Array, InstanceBatch, InstanceOrder, UInt8Array

LOG = logging.getLogger("edge_mil.pipeline")

PRECISIONS = ("fp32", "fp16", "int8")
"""What an extractor may be asked to run in."""

ARRAYS = "arrays"
"""Role of `aggregator.npz` in `AggregatorSpec.graphs`."""

PLAIN = ("values", "attention_logits")
"""Outputs of `attend.onnx` that every pooling knows; others are the head's own."""


class Model:
    """The networks and the pooling of one bundle, ready to run.

    Attributes:
        bundle: The verified bundle.
        aggregator: Its pooling.
        extractor: What runs the extractor; None without one. It may change between two fields.
        threads: Threads of one run on the CPU; None takes as many as there are cores.
    """

    def __init__(
        self,
        bundle: Bundle,
        extractor: Runner | None,
        attend: Network | None,
        aggregator: Aggregator[Any],
    ) -> None:
        self.bundle, self.aggregator = bundle, aggregator
        self.extractor = None if extractor is None else Extractor(extractor)
        self.threads: int | None = None
        self._head = ""
        self._attend = attend
        self._feature_dim = bundle.manifest.aggregator.feature_dim

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        *,
        backend: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
        extractor: bool = True,
        engines: Path | None = None,
    ) -> Model:
        """Load a bundle's graphs. The head runs in FP32 on the CPU, whatever runs the extractor.

        Args:
            bundle: From `open_bundle`.
            backend: One of BACKENDS; TensorRT's engine is built first, where it must be.
            precision: fp32, fp16 (on a GPU only) or int8.
            threads: Threads of one run; None takes as many as there are cores.
            extractor: False leaves the extractor out: enough to score saved features.
            engines: Folder where engines are kept; TensorRT needs it.

        Raises:
            BundleError: The bundle lacks a graph, or the backend cannot run one.
            EngineError: No engine can serve here.
            DependencyError: TensorRT is not installed.
            NotThereYetError: The head belongs to a later release.
            UsageError: There is no such backend or precision.
        """
        if backend not in BACKENDS:
            raise UsageError(f"There is no backend {backend!r}; name one of {', '.join(BACKENDS)}.")
        cpu = open_backend("cpu", threads=threads)

        def load(name: str) -> Network:
            return cpu.load(bundle.read(name), label=f"{name} of {bundle.manifest.name}")

        first = None
        if extractor and bundle.manifest.extractor is not None:
            first = cpu_runner(bundle, precision if backend == "cpu" else "fp32", threads)
        spec = bundle.manifest.aggregator
        networks = {role: load(name) for role, name in spec.graphs.items() if role != ARRAYS}
        attend = networks.pop("attend", None)
        model = cls(bundle, first, attend, _aggregator(bundle, networks))
        model.threads, model._head = threads, cpu.describe()
        if model.extractor is not None and backend != "cpu":
            try:
                if backend == "tensorrt":
                    _accelerate(model, precision, engines)
                else:
                    way = find_variant(bundle, backend, precision)
                    model.extractor.switch(
                        open_variant(bundle, way, threads=threads, engines=engines)
                    )
            except BaseException:
                model.close()
                raise
        return model

    @property
    def precision(self) -> str:
        """What the next field is extracted with: fp32, fp16 or int8."""
        return "fp32" if self.extractor is None else self.extractor.current.precision

    @property
    def backend(self) -> str:
        """What runs the next field, and where."""
        return self._head if self.extractor is None else self.extractor.current.backend

    @property
    def input(self) -> InputSpec | None:
        """What an instance is made from; None for an aggregator-only bundle."""
        return self.bundle.manifest.input

    @functools.cached_property
    def reference(self) -> Reference | None:
        """What the bundle brings to check fields with; None where it brings nothing.

        Raises:
            BundleError: It cannot be read.
        """
        return Reference.load(self.bundle)

    def extract(self, tiles: UInt8Array) -> Float32Array:
        """Run the extractor.

        Args:
            tiles: RGB uint8, shape (n, h, w, 3); any n.

        Returns:
            Features, float32, shape (n, d).

        Raises:
            BundleError: The bundle has no extractor.
            InvalidInstancesError: A feature is not finite.
        """
        return self.extract_by(tiles)[0]

    def extract_by(self, tiles: UInt8Array) -> tuple[Float32Array, Runner | None]:
        """Run the extractor, and say what ran it; see `extract`.

        Returns:
            Features, and the runner that made all of them; None for no tiles.
        """
        if self.extractor is None:
            raise BundleError(
                f"{self.bundle.manifest.name} has no extractor, so it scores saved features only "
                "(edge-mil score); export it with an extractor to score images."
            )
        if len(tiles) == 0:
            return np.empty((0, self._feature_dim), dtype=np.float32), None
        features, runner = self.extractor.features(tiles)
        if not np.isfinite(features).all():
            raise InvalidInstancesError(
                f"The extractor of {self.bundle.manifest.name} gave a feature that is not finite; "
                "export it again and compare it with its FP32 model."
            )
        return features, runner

    def cpu_runner(self, precision: str) -> Runner:
        """Return a new runner on the CPU; the caller closes it, or switches to it.

        Raises:
            BundleError: The bundle has no such extractor.
        """
        return cpu_runner(self.bundle, precision, self.threads)

    def fp32_runner(self) -> Runner:
        """Return the first runner where it is FP32 on the CPU, else a new one."""
        if self.extractor is not None and self.extractor.first.precision == "fp32":
            return self.extractor.first
        return self.cpu_runner("fp32")

    def check_features(self, features: Float32Array) -> None:
        """Check a whole bag at once, so that a message names the row in the file.

        Args:
            features: float32, shape (n, d); any n, 0 too.

        Raises:
            InvalidFeaturesError: Another width, or a number that is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self._feature_dim:
            raise InvalidFeaturesError(
                f"The features have shape {features.shape} and {self.bundle.manifest.name} wants "
                f"(n, {self._feature_dim}); they come from another extractor.",
                expected=self._feature_dim,
            )
        if not np.isfinite(features).all():
            row = int(np.argmin(np.isfinite(features).all(axis=1)))
            raise InvalidFeaturesError(
                f"Row {row} of the features holds NaN or infinity; extract that tile again, or "
                "remove the row.",
                row=row,
            )

    def attend(
        self, features: Float32Array, instance_order: InstanceOrder | None = None
    ) -> InstanceBatch:
        """Run the per-instance part of the aggregator.

        Args:
            features: float32, shape (n, d); any n, 0 too.
            instance_order: Where the instances lie; heads that see the whole bag need it.

        Raises:
            InvalidFeaturesError: Another width, or a number that is not finite.
        """
        self.check_features(features)
        spec = self.bundle.manifest.aggregator
        if len(features) == 0:
            empty = np.empty((0, spec.value_dim), dtype=np.float32)
            logits = np.empty((0, spec.channels), dtype=np.float32)
            return InstanceBatch(empty, logits, instance_order=instance_order)
        single = np.ascontiguousarray(features, dtype=np.float32)
        found = {"values": single}
        if self._attend is not None:
            found = self._attend.run({"features": single})
        logits = found.get("attention_logits", np.empty((len(features), 0), dtype=np.float32))
        extra = {name: array for name, array in found.items() if name not in PLAIN}
        return InstanceBatch(found["values"], logits, extra, instance_order)

    def close(self) -> None:
        """Give the graphs back."""
        if self._attend is not None:
            self._attend.close()
        if self.extractor is not None:
            self.extractor.close()


def cpu_runner(bundle: Bundle, precision: str, threads: int | None) -> Runner:
    """Load the extractor into ONNX Runtime.

    Raises:
        BundleError: The bundle has no such extractor.
        UsageError: There is no such precision on the CPU.
    """
    return open_variant(bundle, find_variant(bundle, "cpu", precision), threads=threads)


def _accelerate(model: Model, precision: str, engines: Path | None) -> None:
    from edge_mil.backends.tensorrt.backend import TensorRtBackend
    from edge_mil.backends.tensorrt.engines.cache import EngineCache
    from edge_mil.pipeline.runners.fallback import select_engine

    if engines is None:
        raise UsageError("TensorRT keeps its engines; name the folder where (--state).")
    assert model.extractor is not None
    made = select_engine(model, TensorRtBackend(EngineCache(engines)), precision)
    if made.missed:
        LOG.warning("%s: %s", model.bundle.manifest.name, made.missed)
    model.extractor.switch(made.runner)


def _aggregator(bundle: Bundle, networks: dict[str, Network]) -> Aggregator[Any]:
    spec, task = bundle.manifest.aggregator, bundle.manifest.task
    classify = networks.pop("classify", None)
    survival = str(spec.options.get("survival", "nll"))
    head = Classifier(task.classes, task.probabilities, classify, task.kind, survival)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    if ARRAYS in spec.graphs:
        with np.load(io.BytesIO(bundle.read(spec.graphs[ARRAYS])), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    return build_aggregator(
        spec.pooling,
        Parts(
            spec.architecture,
            spec.options,
            spec.feature_dim,
            spec.value_dim,
            spec.channels,
            head,
            networks,
            arrays,
        ),
    )
