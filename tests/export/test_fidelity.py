"""Fidelity: what is measured, on which bags, and that no bag is one that calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from edge_mil_export.agreement import centred_error, compare
from edge_mil_export.errors import CalibrationError
from edge_mil_export.fidelity.bags import GENERATED, HELD_BACK, Bag, gather, split
from edge_mil_export.fidelity.generated import paint_tiles
from edge_mil_export.fidelity.stain_shift import SHIFTS, shift_stain, shifted_bags
from edge_mil_export.tiles import FileTiles, TileMaker, spread
from small_extractor import write_images


class MeanHead:
    """Scores a bag by its mean feature; attention by the first column."""

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return two shares."""
        odds = 1 / (1 + np.exp(-features.mean(0)[:2].astype(np.float64)))
        return odds / odds.sum()

    def attention_logits(self, features: np.ndarray) -> np.ndarray | None:
        """Return one channel."""
        return features[:, :1]


def bags_of(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(9, 6)).astype(np.float32) for _ in range(4)]


def test_equal_features_agree_wholly() -> None:
    found = compare(bags_of(), bags_of(), MeanHead())
    assert found.score_difference_max == 0
    assert found.class_flips == 0
    assert found.centred_cosine_min == pytest.approx(1)
    assert found.attention_rank_correlation == pytest.approx(1)


def test_a_common_offset_shows_in_centred_cosines_only() -> None:
    rng = np.random.default_rng(1)
    base = [bag + 50 for bag in bags_of()]
    noisy = [bag + rng.normal(0, 0.5, bag.shape).astype(np.float32) for bag in base]
    found = compare(base, noisy, MeanHead())
    assert found.raw_cosine_min > 0.999
    assert found.centred_cosine_min < 0.97


def test_flips_and_the_largest_difference_are_those_of_single_bags() -> None:
    base = [np.tile(np.float32([0.1, -0.1, 0, 0]), (5, 1)) for _ in range(3)]
    moved = [base[0], -base[1], base[2]]
    found = compare(base, moved, MeanHead())
    assert found.class_flips == 1
    assert found.score_difference_max == found.score_differences[1] > 0
    assert found.score_difference_mean == pytest.approx(found.score_differences[1] / 3)


def test_reversed_attention_has_a_rank_correlation_of_minus_1() -> None:
    base = [np.arange(8, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)]
    assert compare(base, [-base[0]], MeanHead()).attention_rank_correlation == pytest.approx(-1)


def test_the_centred_error_is_a_share_of_the_variance() -> None:
    base = bags_of()[0]
    assert centred_error(base, base) == 0
    assert centred_error(base, np.broadcast_to(base.mean(0), base.shape)) == pytest.approx(1)


def files_of(count: int, tiles: int) -> list[FileTiles]:
    """Files whose tiles are told apart by their first pixel: file number, tile number."""
    made = []
    for number in range(count):
        pixels = np.zeros((tiles, 4, 4, 3), np.uint8)
        pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = number, np.arange(tiles)
        made.append(FileTiles(f"{number}.png", pixels, is_tile=tiles == 1))
    return made


def marks(tiles: np.ndarray) -> set[tuple[int, int]]:
    return {(int(t[0, 0, 0]), int(t[0, 0, 1])) for t in tiles}


@pytest.mark.parametrize(
    ("count", "tiles"), [(39, 16), (4, 8), (2, 30), (1, 40), (40, 1), (200, 1)]
)
def test_no_tile_that_calibrates_is_judged(count: int, tiles: int) -> None:
    used, names, bags = split(files_of(count, tiles))
    assert 16 <= len(used) <= 64
    assert names
    assert bags
    assert not marks(used) & marks(np.concatenate([bag.tiles for bag in bags]))


def test_large_images_are_bags_of_their_own_and_calibration_spreads_over_files() -> None:
    used, names, bags = split(files_of(39, 16))
    assert (len(used), len(names), len(bags)) == (64, 10, 29)
    assert {number for number, _ in marks(used)} == {int(name[:-4]) for name in names}
    assert not {bag.name for bag in bags} & set(names)


def test_too_few_tiles_are_refused_with_the_number_wanted(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "tiles", 7, 32)
    with pytest.raises(CalibrationError, match="gives 7 tiles, and INT8 needs at least 16"):
        gather(TileMaker((32, 32), 0.5, "grid"), folder, [])


def test_images_smaller_than_a_tile_are_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "tiles", 2, 32)
    with pytest.raises(CalibrationError, match=r"32x32 px, smaller than a tile of 64x64"):
        gather(TileMaker((64, 64), 0.5, "grid"), folder, [])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no image or slide"):
        gather(TileMaker((64, 64), 0.5, "grid"), tmp_path, [])


def test_without_images_generated_tiles_are_measured_and_said_to_be() -> None:
    found = gather(TileMaker((32, 32), 0.5, "grid"), None, [])
    assert found.source == GENERATED
    assert found.calibration is None
    assert len(found.bags) == 4


def test_larger_images_are_cut_and_held_back(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "fields", 8, 150)
    found = gather(TileMaker((32, 32), 0.5, "grid"), folder, [])
    assert found.source == HELD_BACK
    assert found.calibration is not None
    assert found.calibration.shape[1:] == (32, 32, 3)
    assert all(len(bag.tiles) <= 16 for bag in found.bags)


def test_for_fields_each_image_is_one_instance(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "fields", 32, 96)
    found = gather(TileMaker((32, 32), 0.5, "field"), folder, [])
    assert found.calibration is not None
    assert len(found.calibration) + sum(len(bag.tiles) for bag in found.bags) == 32


def test_strips_of_a_slide_are_scored_beside_the_whole() -> None:
    bag = Bag("slide", np.zeros((10, 4, 4, 3), np.uint8), parts=3)
    features = np.arange(20, dtype=np.float32).reshape(10, 2)
    assert [len(part) for part in bag.split_features(features)] == [10, 4, 3, 3]
    assert [count for _, count in bag.scored()] == [10, 4, 3, 3]


def test_spread_takes_both_ends() -> None:
    assert spread(100, 4) == [0, 33, 66, 99]
    assert spread(3, 4) == [0, 1, 2]


def test_painted_tiles_are_the_same_for_a_seed_and_not_flat() -> None:
    first, second = paint_tiles(3, (40, 64), 1), paint_tiles(3, (40, 64), 1)
    assert np.array_equal(first, second)
    assert first.shape == (3, 40, 64, 3)
    assert first.std() > 10


def test_a_stain_times_1_is_the_same_picture_and_glass_stays_glass() -> None:
    tiles = paint_tiles(2, (48, 48), 4)
    assert np.abs(shift_stain(tiles, 1, 1).astype(int) - tiles).max() <= 1
    glass = np.full((1, 8, 8, 3), 255, np.uint8)
    assert np.array_equal(shift_stain(glass, 1.4, 0.7), glass)


def test_each_stain_is_multiplied_by_itself() -> None:
    density = {"h": np.array([0.65, 0.70, 0.29]), "e": np.array([0.07, 0.99, 0.11])}
    for name, factors, times in (("h", (1.4, 0.7), 1.4), ("e", (1.4, 0.7), 0.7)):
        level = 255 * np.exp(-0.6 * density[name])
        pixel = np.rint(level).astype(np.uint8).reshape(1, 1, 1, 3)
        wanted = 255 * np.exp(-0.6 * times * density[name])
        assert np.abs(shift_stain(pixel, *factors).ravel() - wanted).max() < 1.5


def test_few_bags_get_every_shift_and_many_one_each() -> None:
    bags = [Bag(f"b{k}", paint_tiles(3, (8, 8), k)) for k in range(40)]
    assert len(shifted_bags(bags[:3])) == 3 * len(SHIFTS)
    many = shifted_bags(bags)
    assert len(many) == 32
    assert len({bag.name.partition(",")[2] for bag in many}) == len(SHIFTS)
    assert not np.array_equal(many[0].tiles, bags[0].tiles)
