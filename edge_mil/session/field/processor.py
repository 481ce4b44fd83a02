"""From one field to what it brings: judged, extracted, folded for itself; nothing is changed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_mil.errors import FrameError
from edge_mil.imaging import thumbnail_jpeg
from edge_mil.imaging.correction.stain import StainTransform
from edge_mil.pipeline import Model
from edge_mil.pipeline.ood.reference import Reference, exchanged_sentence
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.session.field.field_gate import FieldGate, GatedFrame
from edge_mil.session.instances.base import InstanceMap, InstancePlan, rejected
from edge_mil.session.scorer import Scored
from edge_mil.session.stored_fields import field_header, with_arrays
from edge_mil.store import Change, FieldRow, InstanceKind, InstanceRow
from edge_mil.types import FieldResult, Float32Array, Frame, InstanceBatch, Measure, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class ProcessedField:
    """What one field brings.

    Attributes:
        frame: The field, as the calibration corrected it.
        look: The survey's judgement.
        features: Of the look's tiles, float32 (n, d).
        batch: The same, attended.
        states: Sequence -> new state: of the field, and of every earlier one that lost an
            instance to it, None for one that leaves the bag.
        thumbnail: JPEG of an accepted field; b"" of others.
        extractor: What made the features; None where there was nothing to extract.
        timings_s: Seconds by stage; the session goes on writing it.
    """

    frame: Frame
    look: InstancePlan
    features: Float32Array
    batch: InstanceBatch
    states: Mapping[int, Any | None]
    thumbnail: bytes
    extractor: Runner | None = None
    timings_s: dict[str, float] = field(default_factory=dict)

    def result(
        self, sequence: int, scored: Scored, revision: int, fields_held: int, coverage: float
    ) -> FieldResult:
        """Return the answer to the field."""
        look = self.look
        return FieldResult(
            sequence=sequence,
            verdict=look.verdict,
            measures=look.measures,
            score=scored.score,
            as_of=scored.as_of,
            revision=revision,
            fields_held=fields_held,
            coverage=coverage,
            cells_added=look.added,
            cells_improved=look.improved,
            cells_held=look.held,
            timings_s=self.timings_s,
        )

    def change(
        self,
        result: FieldResult,
        answer: bytes,
        *,
        payload_crc: int,
        mpp: float,
        to_bytes: Callable[[Any], bytes],
        meta: Mapping[str, str],
        event: tuple[str, str] | None = None,
    ) -> Change:
        """Return the durable step of the field; `to_bytes` is the aggregator's."""
        look = self.look
        states = {s: None if v is None else to_bytes(v) for s, v in self.states.items()}
        return Change(
            field=FieldRow(
                result.sequence,
                int(look.verdict),
                payload_crc,
                field_header(self._where_counted(), mpp),
                answer,
                states.pop(result.sequence, None),
            ),
            instances=look.glass
            + with_arrays(look.rows, self.features, self.batch.attention_logits),
            parts=look.parts,
            thumbnail=self.thumbnail,
            kinds=dict.fromkeys(look.displaced, InstanceKind.CANDIDATE),
            states=states,
            dropped=look.dropped,
            finished_places=look.finished,
            meta={**meta, **look.meta},
            event=event,
            keys=look.keys,
            key_positions=look.key_positions,
            located=look.located,
            moved=look.moved,
            parts_instead=look.parts_instead,
        )

    def _where_counted(self) -> Frame:
        if self.look.at_um is None:
            return self.frame
        x_um, y_um = self.look.at_um
        return dataclasses.replace(self.frame, x_um=x_um, y_um=y_um)


class FieldProcessor:
    """Runs the pipeline on one field of a session."""

    def __init__(
        self,
        model: Model,
        survey: InstanceMap,
        gate: FieldGate,
        stain: StainTransform | None,
        reference: Reference | None,
        rows_of: Callable[[int], Sequence[InstanceRow]],
    ) -> None:
        """Name the parts.

        Args:
            model: Extracts and pools.
            survey: Judges, and is asked only: whoever reads applies.
            gate: Corrects each field, and judges it before its places.
            stain: What tiles go through before they are extracted; None: nothing.
            reference: The bundle's own, which knows what is unlike it; None: nothing is.
            rows_of: Gives the stored rows of a field, once all that was queued is durable.
        """
        self._model, self._survey, self._rows_of = model, survey, rows_of
        self._gate, self._stain, self._reference = gate, stain, reference

    def read(self, sequence: int, frame: Frame) -> ProcessedField:
        """Judge and extract a field.

        Raises:
            FrameError: Its size is not the session's, or red and blue look exchanged.
            PositionError: It lacks a position or a place.
            InvalidInstancesError: The network gave a number that is not finite.
            StoreError: The rows of a field that loses an instance cannot be read.
        """
        started = time.perf_counter()
        self._survey.check(frame)
        gated = self._gate.judge(frame)
        frame, look = gated.frame, self._look(sequence, gated)
        judged = time.perf_counter()
        tiles = look.tiles
        if self._stain is not None and len(tiles):
            tiles = self._stain.apply(tiles)
        features, extractor = self._model.extract_by(tiles)
        look = self._unlike(look, features)
        features = features[: len(look.rows)]
        places = self._survey.order([row.instance_key for row in look.rows])
        batch = self._model.attend(features, places)
        states: dict[int, Any | None] = {s: None for _, s in look.displaced}
        held = [row.kind is InstanceKind.HELD for row in look.rows]
        if any(held):
            states[sequence] = self._state(batch.take(np.flatnonzero(held)))
        for owner in sorted({owner for _, owner in (*look.dropped, *look.moved)}):
            gone = [place for place, loser in look.dropped if loser == owner]
            states[owner] = self.state_after(owner, gone, moved=look.moved)
        extracted = time.perf_counter()
        jpeg = thumbnail_jpeg(frame.pixels) if look.verdict is Verdict.ACCEPTED else b""
        timings = {
            "gate": judged - started,
            "extract": extracted - judged,
            "thumbnail": time.perf_counter() - extracted,
        }
        return ProcessedField(frame, look, features, batch, states, jpeg, extractor, timings)

    def _look(self, sequence: int, gated: GatedFrame) -> InstancePlan:
        if gated.verdict is Verdict.SATURATED:
            return rejected(gated.verdict, gated.measures)
        look = self._survey.look(sequence, gated.frame)
        said = {measure.name for measure in look.measures}
        measures = (*(m for m in gated.measures if m.name not in said), *look.measures)
        # What shows no tissue is blank, however it looks.
        if look.verdict is Verdict.BLANK:
            return dataclasses.replace(look, measures=measures)
        if gated.verdict is not None:
            return rejected(gated.verdict, measures)
        return dataclasses.replace(look, measures=measures + self._colours(gated.frame))

    def _colours(self, frame: Frame) -> tuple[Measure, ...]:
        reference = self._reference
        measure = None if reference is None else reference.channels_exchanged(frame.pixels)
        if measure is not None and not measure.passed:
            raise FrameError(
                exchanged_sentence(measure),
                reason="CHANNELS_EXCHANGED",
                red_over_blue=f"{measure.value:.3f}",
                expected=f"{measure.threshold:.3f}",
            )
        return () if measure is None else (measure,)

    def _unlike(self, look: InstancePlan, features: Float32Array) -> InstancePlan:
        """Refuse a field whose cells are unlike what the model was made for."""
        if self._reference is None:
            return look
        measure = self._reference.evaluate(self._reference.distance(features))
        if measure is None:
            return look
        measures = (*look.measures, measure)
        if not measure.passed:
            return rejected(Verdict.OUT_OF_DISTRIBUTION, measures)
        return dataclasses.replace(look, measures=measures)

    def state_after(
        self,
        sequence: int,
        gone: Collection[str],
        kinds: Mapping[tuple[str, int], InstanceKind] | None = None,
        moved: Mapping[tuple[str, int], str] | None = None,
    ) -> Any | None:
        """Fold a stored field again without some of its places; never by subtraction.

        Args:
            sequence: The field.
            gone: Places that it loses.
            kinds: (place, sequence) -> new kind, where one changes too.
            moved: (place, sequence) -> new place, where one changes too.

        Returns:
            Its state, None where nothing is left in the bag.

        Raises:
            StoreError: Its rows cannot be read.
        """
        changed, elsewhere = kinds or {}, moved or {}
        held = [
            row
            for row in self._rows_of(sequence)
            if row.instance_key not in gone
            and changed.get((row.instance_key, row.sequence), row.kind) is InstanceKind.HELD
        ]
        if not held:
            return None
        features = np.stack([np.frombuffer(row.features or b"", dtype="<f4") for row in held])
        places = self._survey.order(
            [elsewhere.get((row.instance_key, row.sequence), row.instance_key) for row in held]
        )
        return self._state(self._model.attend(features, places))

    def _state(self, batch: InstanceBatch) -> Any:
        aggregator = self._model.aggregator
        return aggregator.update(aggregator.initial_state(), batch)
