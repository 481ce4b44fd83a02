"""Fields that are unlike what the bundle was made for are refused; exchanged channels in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edge_mil_export.bundle.reference_file import make_reference
from edge_mil_export.tiles import FileTiles
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.errors import FrameError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.ood.reference import DISTANCE, REFERENCE_FILE
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame, UInt8Array, Verdict


def stained(seed: int) -> UInt8Array:
    """Return a slide of one stain: red is taken least, blue most."""
    grey = painted(seed=seed).astype(np.float64).mean(axis=2, keepdims=True)
    varied = painted(seed=seed + 100)[..., :1] * 0.3
    return np.clip(grey * (1.15, 0.8, 0.6) + varied * (1, 0, 0), 0, 200).astype(np.uint8)


def tiles_of(slide: UInt8Array) -> UInt8Array:
    rows = slide.reshape(7, 64, 10, 64, 3).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, 64, 64, 3))


def reference(folder: Path) -> bytes:
    """Return `reference.npz` as the exporter fits it to slides like `stained`."""
    model = load_model(write_small_bundle(folder / "bare"))
    files = [FileTiles(f"{seed}.png", tiles_of(stained(seed)), False) for seed in range(1, 7)]
    found = make_reference(files, model.extract, TissueTest())
    model.close()
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("reference")
    more = {REFERENCE_FILE: reference(folder)}
    loaded = load_model(write_small_bundle(folder / "b", more=more))
    yield loaded
    loaded.close()


def unlike() -> Frame:
    """Return a sharp field of something that is no tissue of this kind."""
    frame = field(painted(seed=9), 100, 100)
    return dataclasses.replace(frame, pixels=np.ascontiguousarray(255 - frame.pixels[..., ::-1]))


def test_fields_of_the_bundles_own_kind_pass_with_their_distance(model: Model) -> None:
    slide = stained(7)
    with Session(model, MPP) as session:
        for x, y in ((0, 0), (192, 0), (0, 128), (300, 300)):
            result = session.add(field(slide, x, y))
            assert result.verdict is Verdict.ACCEPTED
            distance = next(m for m in result.measures if m.name == DISTANCE)
            assert distance.passed
            assert distance.value < distance.threshold


def test_a_field_unlike_it_is_refused_and_gives_nothing(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    session = folder.create(model, SessionSettings(mpp=MPP))
    good = session.add(field(stained(7), 0, 0))
    refused = session.add(unlike())
    assert refused.verdict is Verdict.OUT_OF_DISTRIBUTION
    distance = next(m for m in refused.measures if m.name == DISTANCE)
    assert not distance.passed
    assert distance.value > distance.threshold
    assert refused.score == good.score
    assert session.status().revision == 1
    session._store.flush()
    assert {row.sequence for row in session._store.parts()} <= {1}
    session.release()
    again = folder.open(session.session_id, lambda _: model)
    assert again.score() == good.score
    # Its place is free for a good field.
    assert again.add(field(stained(7), 100, 100)).cells_added > 0
    again.release()


def test_exchanged_channels_are_an_error_that_says_what_to_set(model: Model) -> None:
    frame = field(stained(7), 100, 100)
    swapped = dataclasses.replace(frame, pixels=np.ascontiguousarray(frame.pixels[..., ::-1]))
    with Session(model, MPP) as session:
        with pytest.raises(FrameError, match="Red and blue look exchanged") as caught:
            session.add(swapped)
        assert caught.value.details["reason"] == "CHANNELS_EXCHANGED"
        # Its number may be used again.
        assert session.add(frame, 1).verdict is Verdict.ACCEPTED


def test_without_a_reference_there_is_no_such_gate(tmp_path: Path) -> None:
    model = load_model(write_small_bundle(tmp_path / "b"))
    with Session(model, MPP) as session:
        result = session.add(unlike())
    model.close()
    assert result.verdict is Verdict.ACCEPTED
    assert DISTANCE not in {m.name for m in result.measures}
