"""The steps that one field goes through, from its frame to the state of its instances.

One class with a method for each step, longer than 300 lines.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_mil.errors import FrameError
from edge_mil.imaging import thumbnail_jpeg
from edge_mil.imaging.correction.camera import CameraCorrection
from edge_mil.imaging.correction.stain import StainTransform
from edge_mil.imaging.quality.light import NOTHING_READ, LightReading
from edge_mil.pipeline import Model
from edge_mil.pipeline.ood.reference import Reference, exchanged_sentence
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.session.field.gate import FieldGate, GatedFrame
from edge_mil.session.field.light_history import LightHistory
from edge_mil.session.instances.base import (
    InstanceId,
    InstanceMap,
    InstancePlan,
    Localizer,
    Placement,
    Removal,
    rejected,
)
from edge_mil.session.scorer import Scored
from edge_mil.store import InstanceKind, InstanceRow
from edge_mil.types import (
    FieldResult,
    Float32Array,
    Frame,
    InstanceBatch,
    Measure,
    SessionCheck,
    Verdict,
)
from edge_mil.verdict_text import light_sentence


@dataclass(slots=True, eq=False)
class ProcessedField:
    """What one field brings; each step of `FieldProcessor` fills in its part.

    Attributes:
        sequence: Number of the field.
        frame: As it came; after `correct_and_gate` as the calibration corrected it.
        gated: What the quality gates say.
        placement: Where it lies.
        plan: Which instances it shows, and what it changes.
        features: Of the plan's tiles, float32 (n, d).
        batch: The same instances with attention logits and embeddings.
        states: Sequence -> new state: of this field, and of every earlier one that loses an
            instance to it; None for one that leaves the bag.
        runner: What extracted the features; None where there was nothing to extract.
        thumbnail: JPEG of an accepted field; b"" of others.
        timings_s: Seconds by stage.
    """

    sequence: int
    frame: Frame
    gated: GatedFrame | None = None
    placement: Placement = field(default_factory=lambda: Placement(None, None))
    plan: InstancePlan = field(default_factory=lambda: rejected(Verdict.SATURATED, ()))
    features: Float32Array = field(default_factory=lambda: np.empty((0, 0), np.float32))
    batch: InstanceBatch | None = None
    states: dict[int, Any | None] = field(default_factory=dict)
    runner: Runner | None = None
    thumbnail: bytes = b""
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def counted_at(self) -> Frame:
        """The frame at the position at which it was counted."""
        if self.plan.rejected:
            return self.frame
        return dataclasses.replace(self.frame, x_um=self.placement.x_um, y_um=self.placement.y_um)

    @property
    def light(self) -> LightReading:
        """What the field says of the light."""
        return NOTHING_READ if self.gated is None else self.gated.light

    def result(
        self,
        scored: Scored,
        revision: int,
        fields_held: int,
        coverage: float,
        checks: tuple[SessionCheck, SessionCheck],
        light: str,
        camera: str,
    ) -> FieldResult:
        """Return the answer to the field, given the session, and its checks, after it."""
        geometry, slide = checks
        plan, explanation = self.plan, ""
        if plan.verdict is Verdict.UNLOCATED:
            explanation = self.placement.explanation
        elif plan.verdict is Verdict.WRONG_LIGHT:
            explanation = light_sentence(plan.measures)
        return FieldResult(
            sequence=self.sequence,
            verdict=plan.verdict,
            measures=plan.measures,
            score=scored.score,
            as_of=scored.as_of,
            camera=camera,
            revision=revision,
            fields_held=fields_held,
            coverage=coverage,
            cells_added=plan.added,
            cells_improved=plan.improved,
            cells_held=plan.held,
            timings_s=self.timings_s,
            light=light,
            explanation=explanation,
            geometry=geometry.state.value,
            slide=slide.state.value,
        )


class FieldProcessor:
    """Runs the steps; reads the session's state and changes none of it."""

    def __init__(
        self,
        model: Model,
        localizer: Localizer[Any],
        instances: InstanceMap[Any],
        gate: FieldGate,
        light: LightHistory,
        stain: StainTransform | None,
        rows_of: Callable[[int], Sequence[InstanceRow]],
        camera: CameraCorrection | None = None,
    ) -> None:
        """Take the parts of one session.

        Args:
            model: Extracts, attends and pools; its reference knows what is unlike the bundle.
            localizer: Finds positions.
            instances: Plans what a field changes.
            gate: Corrects each frame and measures its quality.
            light: What earlier fields said of the light; the session notes what this one says.
            stain: Normalises the stain of tiles; None: nothing.
            rows_of: Returns the stored rows of a field, once all that was queued is durable.
            camera: Mends the camera's colours and sharpness in tiles; None: nothing.
        """
        self._model, self._localizer, self._instances = model, localizer, instances
        self._gate, self._light, self._stain, self._rows_of = gate, light, stain, rows_of
        self._camera = camera

    def use(self, instances: InstanceMap[Any]) -> None:
        """Go on with other instances: they were read from the records again."""
        self._instances = instances

    def check(self, field: ProcessedField) -> None:
        """Check what no gate can mend.

        Raises:
            FrameError: The frame's size is not the session's.
            PositionError: It lacks a position or a location.
        """
        self._instances.check(field.frame)
        self._localizer.check(field.frame)

    def correct_and_gate(self, field: ProcessedField) -> None:
        """Apply flat field, white balance and noise reduction; measure saturation, motion, focus.

        Raises:
            FrameError: It has another size than the calibration's frames.
        """
        field.gated = self._light.hold(self._gate.evaluate(field.frame))
        field.frame = field.gated.frame

    def localise(self, field: ProcessedField) -> None:
        """Find where the field lies.

        Raises:
            PixelSizeError: The stage's affine and the pixel size differ by more than a quarter.
        """
        assert field.gated is not None
        if not field.gated.unreadable:
            field.placement = self._localizer.locate(field.sequence, field.frame)

    def plan(self, field: ProcessedField) -> None:
        """Cut the field into the tiles of instances that are new, or seen clearly sharper.

        Raises:
            FrameError: Red and blue look exchanged.
        """
        gated, placement = field.gated, field.placement
        assert gated is not None
        if gated.unreadable:
            assert gated.verdict is not None
            field.plan = rejected(gated.verdict, gated.measures)
            return
        if placement.verdict is not None:
            plan = rejected(placement.verdict, placement.measures)
        else:
            plan = self._instances.plan(field.sequence, field.frame, placement, gated.blurred)
        named = {measure.name for measure in plan.measures}
        measures = (*(m for m in gated.measures if m.name not in named), *plan.measures)
        if plan.verdict is Verdict.BLANK:
            # A field without tissue is blank, however sharp or still it is.
            field.placement = self._localizer.without_tissue(placement)
        elif gated.empty:
            # Of the colour of tissue, and without any structure: no tissue is so even.
            field.plan = rejected(Verdict.BLANK, measures)
            return
        elif plan.verdict is Verdict.BLURRED:
            field.plan = rejected(Verdict.BLURRED, measures)
            return
        elif gated.verdict is not None and not self._partly_sharp(gated, plan):
            field.plan = rejected(gated.verdict, measures)
            return
        else:
            measures += self._channel_order(field.frame)
        field.plan = dataclasses.replace(plan, measures=measures)

    def extract(self, field: ProcessedField) -> None:
        """Run the extractor on the tiles.

        Raises:
            InvalidInstancesError: A feature is not finite.
        """
        tiles = field.plan.tiles
        if self._camera is not None and len(tiles):
            tiles = self._camera.apply(tiles)
        if self._stain is not None and len(tiles):
            tiles = self._stain.apply(tiles)
        field.features, field.runner = self._model.extract_by(tiles)

    def check_distribution(self, field: ProcessedField) -> None:
        """Reject a field whose instances are unlike what the model was made for."""
        reference = self._model.reference
        if reference is None:
            return
        measure = reference.evaluate(reference.distance(field.features))
        if measure is None:
            return
        measures = (*field.plan.measures, measure)
        if measure.passed:
            field.plan = dataclasses.replace(field.plan, measures=measures)
        else:
            field.plan = rejected(Verdict.OUT_OF_DISTRIBUTION, measures)
            field.features = field.features[:0]

    def attend(self, field: ProcessedField) -> None:
        """Run the per-instance part of the head."""
        order = self._instances.order([row.instance_key for row in field.plan.changes.rows])
        field.batch = self._model.attend(field.features, order)

    def fold(
        self, field: ProcessedField, replaced: int | None = None, removal: Removal | None = None
    ) -> None:
        """Fold the field by itself, and again every earlier one that loses an instance to it.

        Args:
            field: The field.
            replaced: The earlier field that it replaces; None for none.
            removal: What leaves with that one.

        Raises:
            StoreError: The rows of such a field cannot be read.
        """
        changes = field.plan.changes
        assert field.batch is not None
        field.states = {sequence: None for _, sequence in changes.displaced}
        held = [row.kind is InstanceKind.HELD for row in changes.rows]
        if any(held):
            field.states[field.sequence] = self._state(field.batch.take(np.flatnonzero(held)))
        leaving = removal or Removal()
        for owner in sorted({owner for _, owner in (*changes.dropped, *changes.moved)}):
            lost = [key for key, loser in changes.dropped if loser == owner]
            field.states[owner] = self.state_without(
                owner, [*lost, *leaving.dropped], leaving.kinds, changes.moved
            )
        for owner in leaving.touched:
            if owner not in field.states:
                field.states[owner] = self.state_without(owner, leaving.dropped, leaving.kinds)
        if replaced is not None:
            field.states[replaced] = None

    def draw_thumbnail(self, field: ProcessedField) -> None:
        """Draw the small picture that reports and mosaics are made of."""
        if field.plan.verdict is Verdict.ACCEPTED:
            field.thumbnail = thumbnail_jpeg(field.frame.pixels)

    def state_without(
        self,
        sequence: int,
        lost: Collection[str],
        kinds: Mapping[InstanceId, InstanceKind] | None = None,
        moved: Mapping[InstanceId, str] | None = None,
    ) -> Any | None:
        """Fold a stored field again without some of its instances; never by subtraction.

        Args:
            sequence: Number of the field.
            lost: Keys of the instances that it loses.
            kinds: Instance -> new kind, where one changes too.
            moved: Instance -> new key, where one changes too.

        Returns:
            Its state, None where nothing of it is left in the bag.

        Raises:
            StoreError: Its rows cannot be read.
        """
        new_kind, new_key = kinds or {}, moved or {}
        held = [
            row
            for row in self._rows_of(sequence)
            if row.instance_key not in lost
            and new_kind.get((row.instance_key, row.sequence), row.kind) is InstanceKind.HELD
        ]
        if not held:
            return None
        features = np.stack([np.frombuffer(row.features or b"", dtype="<f4") for row in held])
        order = self._instances.order(
            [new_key.get((row.instance_key, row.sequence), row.instance_key) for row in held]
        )
        return self._state(self._model.attend(features, order))

    @staticmethod
    def _partly_sharp(gated: GatedFrame, plan: InstancePlan) -> bool:
        """Say whether a field that is blurred as a whole brings cells that are sharp."""
        brings = plan.added or plan.improved or plan.changes.parts
        named = {measure.name for measure in plan.measures}
        return gated.verdict is Verdict.BLURRED and "blurred_cells" in named and bool(brings)

    def _channel_order(self, frame: Frame) -> tuple[Measure, ...]:
        reference: Reference | None = self._model.reference
        measure = None if reference is None else reference.channels_exchanged(frame.pixels)
        if measure is not None and not measure.passed:
            raise FrameError(
                exchanged_sentence(measure),
                reason="CHANNELS_EXCHANGED",
                red_over_blue=f"{measure.value:.3f}",
                expected=f"{measure.threshold:.3f}",
            )
        return () if measure is None else (measure,)

    def _state(self, batch: InstanceBatch) -> Any:
        aggregator = self._model.aggregator
        return aggregator.update(aggregator.initial_state(), batch)


class Stopwatch:
    """Measures the stages of one field for its timings."""

    def __init__(self, timings_s: dict[str, float]) -> None:
        self._timings_s, self._since = timings_s, time.perf_counter()

    def lap(self, stage: str) -> None:
        """Note the seconds since the last call under the name of a stage."""
        now = time.perf_counter()
        self._timings_s[stage], self._since = now - self._since, now
