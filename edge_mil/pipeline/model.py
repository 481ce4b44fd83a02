"""A bundle that runs: its graphs loaded into a backend, its pooling beside them."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np

from edge_mil.aggregators import Classifier, Parts, build_aggregator
from edge_mil.backends import open_backend
from edge_mil.bundle import Bundle, InputSpec
from edge_mil.errors import (
    BundleError,
    InvalidFeaturesError,
    InvalidInstancesError,
    UsageError,
)
from edge_mil.pipeline.reference import Reference
from edge_mil.protocols import Aggregator, Network
from edge_mil.types import Float32Array, InstanceBatch, Places, UInt8Array

MAX_BATCH = 32
"""Tiles of one run: ONNX Runtime is as fast at 8 as at 32 (`runtime.md`, section 4)."""

PRECISIONS = {"cpu": {"fp32": "fp32", "int8": "int8-cpu"}}
"""What a backend runs for a precision: a key of `ExtractorSpec.graphs`."""


ARRAYS = "arrays"
"""Role of `aggregator.npz` in `AggregatorSpec.graphs`."""

PLAIN = ("values", "attention_logits")
"""Outputs of `attend.onnx` that every pooling knows; others are the head's own."""


class Model:
    """The networks and the pooling of one bundle, ready to run.

    Attributes:
        bundle: The verified bundle.
        aggregator: Its pooling.
        precision: fp32 or int8.
    """

    def __init__(
        self,
        bundle: Bundle,
        extractor: Network | None,
        attend: Network | None,
        aggregator: Aggregator[Any],
    ) -> None:
        self.bundle, self.aggregator = bundle, aggregator
        self.precision = "fp32"
        self.backend = ""
        self._extractor, self._attend = extractor, attend
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
    ) -> Model:
        """Load a bundle's graphs.

        Args:
            bundle: From `open_bundle`.
            backend: As `open_backend` names it.
            precision: fp32 or int8.
            threads: Threads of one run; None takes as many as there are cores.
            extractor: False leaves the extractor out: enough to score saved features.

        Raises:
            BundleError: The bundle lacks a graph, or the backend cannot run one.
            NotThereYetError: The head, or the backend, belongs to a later release.
        """
        runner = open_backend(backend, threads=threads)

        def load(name: str) -> Network:
            return runner.load(bundle.read(name), label=f"{name} of {bundle.manifest.name}")

        tiles = None
        if extractor and bundle.manifest.extractor is not None:
            tiles = load(_graph(bundle, backend, precision))
        spec = bundle.manifest.aggregator
        networks = {role: load(name) for role, name in spec.graphs.items() if role != ARRAYS}
        attend = networks.pop("attend", None)
        model = cls(bundle, tiles, attend, _aggregator(bundle, networks))
        model.precision, model.backend = precision, runner.describe()
        return model

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
        if self._extractor is None:
            raise BundleError(
                f"{self.bundle.manifest.name} has no extractor, so it scores saved features only "
                "(edge-mil score); export it with an extractor to score images."
            )
        if len(tiles) == 0:
            return np.empty((0, self._feature_dim), dtype=np.float32)
        parts = [
            self._extractor.run({"tiles": tiles[at : at + MAX_BATCH]})["features"]
            for at in range(0, len(tiles), MAX_BATCH)
        ]
        features = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(features).all():
            raise InvalidInstancesError(
                f"The extractor of {self.bundle.manifest.name} gave a feature that is not finite; "
                "export it again and compare it with its FP32 model."
            )
        return features

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

    def attend(self, features: Float32Array, places: Places | None = None) -> InstanceBatch:
        """Run the per-instance part of the aggregator.

        Args:
            features: float32, shape (n, d); any n, 0 too.
            places: Where the instances lie; heads that see the whole bag need it.

        Raises:
            InvalidFeaturesError: Another width, or a number that is not finite.
        """
        self.check_features(features)
        spec = self.bundle.manifest.aggregator
        if len(features) == 0:
            empty = np.empty((0, spec.value_dim), dtype=np.float32)
            logits = np.empty((0, spec.channels), dtype=np.float32)
            return InstanceBatch(empty, logits, places=places)
        single = np.ascontiguousarray(features, dtype=np.float32)
        found = {"values": single}
        if self._attend is not None:
            found = self._attend.run({"features": single})
        logits = found.get("attention_logits", np.empty((len(features), 0), dtype=np.float32))
        extra = {name: array for name, array in found.items() if name not in PLAIN}
        return InstanceBatch(found["values"], logits, extra, places)

    def close(self) -> None:
        """Give the graphs back."""
        if self._attend is not None:
            self._attend.close()
        if self._extractor is not None:
            self._extractor.close()


def _graph(bundle: Bundle, backend: str, precision: str) -> str:
    """Return the extractor's file for a backend and precision."""
    spec = bundle.manifest.extractor
    if precision not in ("fp32", "int8"):
        raise UsageError(f"There is no precision {precision!r}; name fp32 or int8.")
    key = PRECISIONS[backend][precision]
    if spec is None or key not in spec.graphs:
        raise BundleError(
            f"{bundle.manifest.name} has no {precision} extractor; use --precision fp32, or "
            "export it with --precision fp32,int8 --calibration DIR."
        )
    return spec.graphs[key]


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
