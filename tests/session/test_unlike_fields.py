"""Fields that are unlike what the bundle was made for are refused; exchanged channels in words."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.errors import FrameError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline import Model
from edge_mil.pipeline.colours import tissue_colour
from edge_mil.pipeline.reference import DISTANCE, REFERENCE_FILE
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Float64Array, Frame, UInt8Array, Verdict


def stained(seed: int) -> UInt8Array:
    """Return a slide of one stain: red is taken least, blue most."""
    grey = painted(seed=seed).astype(np.float64).mean(axis=2, keepdims=True)
    varied = painted(seed=seed + 100)[..., :1] * 0.3
    return np.clip(grey * (1.15, 0.8, 0.6) + varied * (1, 0, 0), 0, 200).astype(np.uint8)


def tiles_of(slide: UInt8Array) -> UInt8Array:
    rows = slide.reshape(7, 64, 10, 64, 3).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, 64, 64, 3))


def reference(folder: Path) -> bytes:
    """Return `reference.npz` of tiles like `stained`, in the exporter's layout."""
    model = Model.load(write_small_bundle(folder / "bare"))
    tiles = np.concatenate([tiles_of(stained(seed)) for seed in (1, 2, 3)])
    features = model.extract(tiles)
    model.close()
    mean = features.mean(axis=0, dtype=np.float64)
    _, scale, axes = np.linalg.svd(features - mean, full_matrices=False)
    scale = scale[:6] / np.sqrt(len(features))
    off = features - mean - (features - mean) @ axes[:6].T @ axes[:6]
    residual = float(np.sqrt((off**2).sum(axis=1).mean()))
    along = ((features - mean) @ axes[:6].T / scale) ** 2
    distance = np.sqrt(along.sum(axis=1) + (off**2).sum(axis=1) / residual**2)
    colours = [tissue_colour(tile, TissueTest()) for tile in tiles]
    signs: Float64Array = np.stack([c.signs for c in colours if c is not None])
    buffer = io.BytesIO()
    np.savez(
        buffer,
        tiles=tiles[:4],
        features=features[:4],
        distance_mean=mean,
        distance_axes=axes[:6],
        distance_scale=scale,
        distance_residual=residual,
        distance_limit=np.quantile(distance, 0.99),
        distance_false_alarm=0.01,
        colour_mean=signs.mean(axis=0),
        colour_precision=np.linalg.inv(np.cov(signs.T)),
        colour_limit=5.0,
        colour_red_over_blue=np.median([c.red_over_blue for c in colours if c is not None]),
    )
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("reference")
    more = {REFERENCE_FILE: reference(folder)}
    loaded = Model.load(write_small_bundle(folder / "b", more=more))
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
    assert session.standing().revision == 1
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
    model = Model.load(write_small_bundle(tmp_path / "b"))
    with Session(model, MPP) as session:
        result = session.add(unlike())
    model.close()
    assert result.verdict is Verdict.ACCEPTED
    assert DISTANCE not in {m.name for m in result.measures}
