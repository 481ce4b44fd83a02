"""`reference.npz`: written from calibration tiles, read on the device, its limits held."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from shared_data import shared
from small_bundle import FEATURES, write_small_bundle

pytest.importorskip("torch")

from edge_mil_export.bundle.reference_file import fit, make_reference
from edge_mil_export.tiles import FileTiles

from edge_mil.bundle import Bundle, open_bundle, write_bundle
from edge_mil.errors import BundleError, InvalidFeaturesError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline.ood.reference import REFERENCE_FILE, Reference, exchanged_sentence
from edge_mil.types import Float32Array, UInt8Array

ROOT = Path(__file__).resolve().parents[2]
PX, WIDTH = 32, 24
RNG = np.random.default_rng(4)
MIXING = RNG.standard_normal((6, WIDTH))
HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def stained(count: int, seed: int) -> UInt8Array:
    """Return tiles of two stains in changing amounts, by their optical densities."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.25, (count, PX, PX, 2)) * rng.uniform(0.6, 1.4, (count, 1, 1, 2))
    density = amounts @ np.stack([HAEMATOXYLIN, EOSIN])
    return (240 * np.exp(-density)).astype(np.uint8)


def features_of(tiles: UInt8Array) -> Float32Array:
    """Return features that follow the colours of a tile and how much they vary."""
    flat = tiles.reshape(len(tiles), -1, 3).astype(np.float64)
    numbers = np.concatenate([flat.mean(axis=1) / 255, flat.std(axis=1) / 64], axis=1)
    return np.maximum(numbers @ MIXING, 0).astype(np.float32)


def files(count: int, each: int = 4) -> list[FileTiles]:
    return [FileTiles(f"f{k}", stained(each, k), is_tile=False) for k in range(count)]


@pytest.fixture(scope="module")
def made() -> bytes:
    return make_reference(files(40), features_of, TissueTest())


@pytest.fixture(scope="module")
def reference(made: bytes) -> Reference:
    return Reference.parse(made, TissueTest())


def with_reference(folder: Path, data: bytes) -> Bundle:
    plain = write_small_bundle(folder / "plain")
    content = {name: plain.read(name) for name in plain.manifest.files} | {REFERENCE_FILE: data}
    manifest = structs.replace(plain.manifest, files={})
    return write_bundle(manifest, content, folder / "whole")


def test_a_bundle_gives_its_reference_back(made: bytes, tmp_path: Path) -> None:
    bundle = with_reference(tmp_path, made)
    found = Reference.load(open_bundle(bundle.path))
    assert found is not None
    assert found.tiles.dtype == np.uint8
    assert found.tiles.shape == (16, PX, PX, 3)
    np.testing.assert_array_equal(found.features, features_of(found.tiles))
    assert found.has_limit
    assert (found.false_alarm, found.field_false_alarm) == (0.001, 0.005)
    assert 0 < found.field_limit <= found.limit
    assert found.sharpness is not None
    assert made == make_reference(files(40), features_of, TissueTest())


def test_a_bundle_without_the_file_has_no_reference(tmp_path: Path) -> None:
    assert Reference.load(write_small_bundle(tmp_path / "plain")) is None
    demo = open_bundle(ROOT / "edge_mil" / "demo" / "bundle")
    assert Reference.load(demo) is None


def test_an_older_file_of_tiles_and_features_judges_nothing(tmp_path: Path) -> None:
    out = io.BytesIO()
    tiles = stained(3, 0)
    np.savez_compressed(out, tiles=tiles, features=np.zeros((3, FEATURES), np.float32))
    found = Reference.load(with_reference(tmp_path, out.getvalue()))
    assert found is not None
    assert not found.has_limit
    assert found.evaluate(found.distance(np.ones((2, FEATURES), np.float32))) is None
    assert found.channels_exchanged(tiles[0]) is None


@pytest.mark.parametrize("data", [b"no archive", b""])
def test_a_file_that_is_something_else_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="copy the bundle again, or export it again"):
        Reference.load(with_reference(tmp_path, data))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.savez(out, tiles=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BundleError, match="copy the bundle again, or export it again"):
        Reference.load(with_reference(tmp_path, out.getvalue()))


def test_tiles_of_the_same_kind_pass_and_others_do_not(reference: Reference) -> None:
    alike = reference.distance(features_of(stained(400, 999)))
    assert alike.dtype == np.float32
    assert (alike > reference.limit).mean() <= 0.02
    kept = reference.evaluate(alike[:9])
    assert kept is not None
    assert kept.passed
    noise = np.random.default_rng(0).integers(0, 256, (12, PX, PX, 3), dtype=np.uint8)
    refused = reference.evaluate(reference.distance(features_of(noise)))
    assert refused is not None
    assert not refused.passed
    assert refused.value > refused.threshold == reference.field_limit


def test_few_cells_are_asked_by_the_wider_limit_and_none_by_no_limit(reference: Reference) -> None:
    between = np.full(2, (reference.limit + reference.field_limit) / 2, np.float32)
    few = reference.evaluate(between)
    assert few is not None
    assert few.passed
    many = reference.evaluate(np.repeat(between, 4))
    assert many is not None
    assert not many.passed
    assert reference.evaluate(between[:0]) is None
    assert reference.distance(np.empty((0, WIDTH), np.float32)).shape == (0,)


def test_strength_of_the_features_does_not_matter_but_their_width_does(
    reference: Reference,
) -> None:
    features = features_of(stained(5, 77))
    np.testing.assert_allclose(
        reference.distance(features), reference.distance(3 * features), atol=1e-5
    )
    with pytest.raises(InvalidFeaturesError, match="width 24"):
        reference.distance(np.ones((2, 7), np.float32))


def test_with_few_tiles_nothing_is_judged() -> None:
    found = Reference.parse(make_reference(files(5), features_of, TissueTest()), TissueTest())
    assert len(found.tiles) == 16
    assert not found.has_limit
    assert found.colours is None


def test_limits_are_wider_where_files_differ() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, WIDTH)).astype(np.float32)
    folds = np.repeat(np.arange(5.0), 40)
    apart = rows + 2 * np.repeat(rng.standard_normal((5, WIDTH)), 40, axis=0)
    # Cross-fitted by files, not by tiles: a new file may be as far off as these are.
    assert fit(apart.astype(np.float32), folds).limit > 1.1 * fit(rows, folds).limit


def test_exchanged_channels_are_told_and_good_ones_are_not(reference: Reference) -> None:
    for seed in range(20):
        picture = np.concatenate(list(stained(9, 500 + seed)), axis=1)
        good = reference.channels_exchanged(picture)
        assert good is not None
        assert good.passed
        wrong = reference.channels_exchanged(np.ascontiguousarray(picture[:, :, ::-1]))
        assert wrong is not None
        assert not wrong.passed
    sentence = exchanged_sentence(wrong)
    assert "set the camera's pixel format" in sentence
    assert f"{wrong.value:.2f}" in sentence
    assert f"{wrong.threshold:.2f}" in sentence


def test_glass_and_grey_say_nothing_of_the_channels(reference: Reference) -> None:
    glass = np.full((64, 64, 3), 240, np.uint8)
    assert reference.channels_exchanged(glass) is None
    grey = np.repeat(RNG.integers(40, 200, (64, 64, 1), dtype=np.uint8), 3, axis=2)
    measure = reference.channels_exchanged(grey)
    assert measure is not None
    assert measure.passed


@pytest.mark.shared
@pytest.mark.slow
def test_real_blocks_held_back_pass_and_real_foreign_images_do_not() -> None:
    ended = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "benchmarks" / "evaluate_out_of_distribution.py"),
            str(shared("data")),
            *("--tiles-per-image", "4", "--json"),
        ],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    rows = {row["images"]: row for row in json.loads(ended.stdout)["results"]}
    own = rows.pop("osteosarcoma_he, blocks held back")
    assert own["fields_refused"] <= 0.05
    assert own["tiles_refused"] <= 0.01
    assert own["exchanged_as_sent"] == 0
    assert own["exchanged_found"] >= 0.85
    for name in ("breakhis_400x", "crc_he"):
        assert rows[name]["fields_refused"] <= 0.1
        assert rows[name]["exchanged_as_sent"] <= 0.05
    for name in ("blood_disease_fov", "blood_cells_fov", "focus_stack_a", "noise"):
        assert rows[name]["fields_refused"] >= 0.7
