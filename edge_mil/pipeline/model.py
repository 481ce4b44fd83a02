"""A bundle that runs: tiles to features, features to what the aggregator pools."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edge_mil.bundle import Bundle, InputSpec
from edge_mil.errors import BundleError, InvalidFeaturesError, InvalidInstancesError
from edge_mil.pipeline.ood.reference import Reference
from edge_mil.pipeline.runners.runner import Extractor, Runner
from edge_mil.protocols import Aggregator, Network
from edge_mil.types import Float32Array, InstanceBatch, InstanceOrder, UInt8Array

EMBEDDINGS, ATTENTION_LOGITS = "values", "attention_logits"
"""Outputs of `attend.onnx` that every pooling has; further ones are the head's own."""


class Model:
    """The networks and the pooling of one bundle, ready to run; `load_model` makes one.

    Attributes:
        bundle: The verified bundle.
        aggregator: Its pooling.
        attend_network: `attend.onnx`; None where the aggregator pools the features themselves.
        extractor: Runs the extractor; None without one. Its runner may change between two fields.
        threads: Threads of one run on the CPU; None takes as many as there are cores.
    """

    def __init__(
        self,
        bundle: Bundle,
        extractor: Runner | None,
        attend: Network | None,
        aggregator: Aggregator[Any],
        *,
        threads: int | None = None,
        head: str = "",
    ) -> None:
        """Put loaded parts together; the model closes them, `head` says what runs its head."""
        self.bundle, self.aggregator, self.attend_network = bundle, aggregator, attend
        self.extractor = None if extractor is None else Extractor(extractor)
        self.threads = threads
        self._head = head
        self._feature_dim = bundle.manifest.aggregator.feature_dim

    @property
    def precision(self) -> str:
        """What the next field is extracted in: fp32, fp16 or int8."""
        return "fp32" if self.extractor is None else self.extractor.current.precision

    @property
    def backend(self) -> str:
        """What runs the next field where, as "ONNX Runtime 1.23 on the CPU, threads: 2"."""
        return self._head if self.extractor is None else self.extractor.current.description

    @property
    def input(self) -> InputSpec | None:
        """What an instance is made from; None for an aggregator-only bundle."""
        return self.bundle.manifest.input

    @functools.cached_property
    def reference(self) -> Reference | None:
        """The bundle's calibration tiles and their statistics; None where it has none.

        Raises:
            BundleError: They cannot be read.
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
            FrameError: The tiles have another size or type.
            InvalidInstancesError: A feature is not finite.
            BackendLostError: The last runner failed too.
        """
        return self.extract_by(tiles)[0]

    def extract_by(self, tiles: UInt8Array) -> tuple[Float32Array, Runner | None]:
        """Run the extractor, and name its runner; see `extract`.

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
            instance_order: Canonical order of the instances; heads that see the whole bag need it.

        Returns:
            Embeddings and attention logits of the instances.

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
        outputs = {EMBEDDINGS: single}
        if self.attend_network is not None:
            outputs = self.attend_network.run({"features": single})
        embeddings = outputs.pop(EMBEDDINGS)
        logits = outputs.pop(ATTENTION_LOGITS, np.empty((len(features), 0), dtype=np.float32))
        return InstanceBatch(embeddings, logits, outputs, instance_order)

    def close(self) -> None:
        """Free the graphs."""
        if self.attend_network is not None:
            self.attend_network.close()
        if self.extractor is not None:
            self.extractor.close()
