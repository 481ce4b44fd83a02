"""Engine files and their cache, with plans of our own making: nothing here deserialises one."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_mil.backends.tensorrt.device import Device
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.engine_file import MAGIC, read_engine, write_engine
from edge_mil.backends.tensorrt.engines.recipe import BatchProfile, EngineKey, Recipe
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import EngineError
from edge_mil.protocols import Graph

PLAN = b"plan" * 1000


MODULE = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=0))
LIBRARY = Library("tensorrt_rtx", "1.7.1", MODULE)
ORIN = Device("Orin", "8.7", 8, 12060, 8 << 30, integrated=True)


def recipe(**changed: object) -> Recipe:
    graph = Graph(b"graph", "extractor.onnx of x")
    return Recipe(**{"graph": graph, "precision": "fp32"} | changed)


def kept(cache: EngineCache, key: EngineKey, plan: bytes = PLAN) -> Path:
    part = cache.new_part()
    with part.open("wb") as file:
        write_engine(file, key, "extractor.onnx of x", memoryview(plan), time.time(), 1.5)
    cache.keep(key, part)
    return cache.path(key)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def key() -> EngineKey:
    return recipe().key(LIBRARY, ORIN)


def test_a_kept_engine_is_found_with_its_plan(cache: EngineCache, key: EngineKey) -> None:
    kept(cache, key)
    found = cache.find(key)
    assert found is not None
    assert found[1] == PLAN


def test_folder_and_files_are_private(cache: EngineCache, key: EngineKey) -> None:
    path = kept(cache, key)
    cache.remember_failure(key, "x", "why")
    assert cache.root.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in cache.root.iterdir()} == {0o600}
    assert path.parent == cache.root


@pytest.mark.parametrize(
    "other",
    [
        recipe(graph=Graph(b"another graph", "extractor.onnx of x")).key(LIBRARY, ORIN),
        recipe(precision="int8").key(LIBRARY, ORIN),
        recipe(profile=BatchProfile(1, 4, 16)).key(LIBRARY, ORIN),
        recipe(workspace_bytes=1).key(LIBRARY, ORIN),
        recipe(optimisation_level=1).key(LIBRARY, ORIN),
        recipe().key(Library("tensorrt", "1.7.1", MODULE), ORIN),
        recipe().key(Library("tensorrt_rtx", "1.7.2", MODULE), ORIN),
        recipe().key(LIBRARY, None),
        recipe().key(LIBRARY, Device("Orin", "8.7", 16, 12060, 8 << 30)),
        recipe().key(LIBRARY, Device("Orin", "8.7", 8, 13000, 8 << 30)),
        recipe().key(LIBRARY, Device("Orin", "8.7", 8, 12060, 8 << 30, power_mode="pmode:0002")),
    ],
)
def test_each_part_of_the_key_makes_another_engine(
    cache: EngineCache, key: EngineKey, other: EngineKey
) -> None:
    kept(cache, key)
    assert cache.find(other) is None


def test_an_engine_under_the_name_of_another_is_refused_and_removed(
    cache: EngineCache, key: EngineKey
) -> None:
    other = recipe().key(Library("tensorrt_rtx", "1.6.0", MODULE), ORIN)
    kept(cache, other).rename(cache.path(key))
    with pytest.raises(EngineError, match=r"version 1.6.0 and not 1.7.1"):
        read_engine(cache.path(key), key)
    assert cache.find(key) is None
    assert not cache.path(key).exists()


@pytest.mark.parametrize("at", [0, len(MAGIC) + 2, len(MAGIC) + 40, -10])
def test_one_changed_byte_anywhere_is_found(cache: EngineCache, key: EngineKey, at: int) -> None:
    path = kept(cache, key)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert cache.find(key) is None
    assert not path.exists()


@pytest.mark.parametrize("length", [0, 10, 30, 200, -1])
def test_an_engine_that_was_cut_off_is_found(
    cache: EngineCache, key: EngineKey, length: int
) -> None:
    path = kept(cache, key)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.find(key) is None


def test_a_plan_without_our_header_is_never_run(cache: EngineCache, key: EngineKey) -> None:
    cache.path(key).write_bytes(PLAN)
    with pytest.raises(EngineError, match="no engine file of edge_mil"):
        read_engine(cache.path(key), key)


def test_a_file_that_others_may_write_is_not_run(cache: EngineCache, key: EngineKey) -> None:
    path = kept(cache, key)
    path.chmod(0o666)
    with pytest.raises(EngineError, match="other users may write"):
        read_engine(path, key)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_not_run(cache: EngineCache, key: EngineKey) -> None:
    path = kept(cache, key)
    os.chown(path, 12345, -1)
    with pytest.raises(EngineError, match="belongs to user 12345"):
        read_engine(path, key)


def test_a_failure_is_remembered_with_its_time_until_it_is_cleared(
    cache: EngineCache, key: EngineKey
) -> None:
    before = time.time()
    cache.remember_failure(key, "extractor.onnx of x", "no memory")
    failure = cache.failure(key)
    assert failure is not None
    assert failure.reason == "no memory"
    assert failure.time >= before
    assert cache.clear({key.parts["graph"]}) == 1
    assert cache.failure(key) is None


def test_an_engine_that_failed_its_verification_is_removed(
    cache: EngineCache, key: EngineKey
) -> None:
    path = kept(cache, key)
    cache.remember_failure(key, "x", "it is outside of the bundle's bound")
    assert not path.exists()
    assert cache.find(key) is None


def test_an_engine_forgets_the_failure_before_it(cache: EngineCache, key: EngineKey) -> None:
    cache.remember_failure(key, "x", "no memory")
    kept(cache, key)
    assert cache.failure(key) is None


def test_clear_leaves_the_engines_of_other_bundles(cache: EngineCache, key: EngineKey) -> None:
    other = recipe(graph=Graph(b"other", "extractor.onnx of x")).key(LIBRARY, ORIN)
    kept(cache, key)
    kept(cache, other)
    assert cache.clear({key.parts["graph"]}) == 1
    assert [digest for digest, _ in cache.engines()] == [other.digest]


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file is in the way")
    with pytest.raises(EngineError, match="Engines cannot be kept in"):
        EngineCache(tmp_path / "engines")


def test_what_a_power_cut_left_of_a_build_goes_after_a_day(cache: EngineCache) -> None:
    old, new = cache.new_part(), cache.new_part()
    os.utime(old, (0, 0))
    EngineCache(cache.root)
    assert not old.exists()
    assert new.exists()


def test_a_damaged_note_of_a_failure_is_no_failure(cache: EngineCache, key: EngineKey) -> None:
    cache.remember_failure(key, "x", "why")
    path = next(cache.root.glob("*.failed.json"))
    path.write_text(json.dumps({"reason": "half"}))
    assert cache.failure(key) is None
    assert list(cache.failures()) == []
