"""Features files: what is read, and what is refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mil.errors import InvalidFeaturesError
from edge_mil.pipeline.saved_features.reader import read_features

FEATURES = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
POSITIONS = np.arange(10.0).reshape(5, 2)


def npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "bag.npz", **arrays)
    return folder / "bag.npz"


def hdf5(folder: Path, attributes: dict[str, Any] | None = None, **arrays: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "bag.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
            file[name].attrs.update(attributes or {})
    return folder / "bag.h5"


def torch_file(folder: Path, value: Any, **options: Any) -> Path:
    torch = pytest.importorskip("torch")
    torch.save(value, folder / "bag.pt", **options)
    return folder / "bag.pt"


def test_npz_gives_features_positions_and_groups(tmp_path: Path) -> None:
    group = np.asarray([0, 1, 0, 1, 2])
    found = read_features(npz(tmp_path, features=FEATURES, positions=POSITIONS, group=group))
    assert np.array_equal(found.features, FEATURES)
    assert found.positions is not None
    assert np.array_equal(found.positions, POSITIONS)
    assert found.group is not None
    assert np.array_equal(found.group, group)
    assert found.encoder == ""


@pytest.mark.parametrize("axis", [True, False], ids=["leading axis of 1", "plain"])
def test_hdf5_of_trident_and_clam(tmp_path: Path, axis: bool) -> None:
    arrays = {"features": FEATURES, "coords": POSITIONS.astype(np.int64)}
    arrays = {name: array[None] if axis else array for name, array in arrays.items()}
    found = read_features(hdf5(tmp_path, {"encoder": "uni_v1"}, **arrays))
    assert np.array_equal(found.features, FEATURES)
    assert found.positions is not None
    assert np.array_equal(found.positions, POSITIONS)
    assert found.encoder == "uni_v1"


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_numbers_become_float32(tmp_path: Path, dtype: Any) -> None:
    found = read_features(npz(tmp_path, features=FEATURES.astype(dtype)))
    assert found.features.dtype == np.float32
    assert np.array_equal(found.features, FEATURES.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64"])
def test_torch_tensors_of_every_type(tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(FEATURES).to(getattr(torch, dtype))
    found = read_features(torch_file(tmp_path, tensor))
    assert np.array_equal(found.features, tensor.to(torch.float32).numpy())


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.T.contiguous().T,
        lambda t: t.repeat(2, 1)[1:6].roll(1, 0),
        lambda t: t.repeat(3, 1)[::3],
        lambda t: t[:1].expand(5, 4),
        lambda t: t[None],
        lambda t: t[:0],
    ],
    ids=["transposed", "offset", "stepped", "expanded", "leading axis", "empty"],
)
def test_torch_views_are_read_as_torch_reads_them(
    tmp_path: Path, view: Callable[[Any], Any]
) -> None:
    torch = pytest.importorskip("torch")
    tensor = view(torch.from_numpy(FEATURES))
    found = read_features(torch_file(tmp_path, tensor))
    assert np.array_equal(found.features, tensor.numpy().reshape(-1, 4))


def test_a_dict_of_tensors_and_a_parameter_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(FEATURES)
    places = torch.from_numpy(POSITIONS)
    found = read_features(torch_file(tmp_path, {"features": tensor, "coords": places, "n": 5}))
    assert np.array_equal(found.features, FEATURES)
    assert found.positions is not None
    found = read_features(torch_file(tmp_path, torch.nn.Parameter(tensor)))
    assert np.array_equal(found.features, FEATURES)


def test_torch_files_are_read_without_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = torch_file(tmp_path, torch.from_numpy(FEATURES))
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from edge_mil.pipeline.saved_features.reader import read_features\n"
        f"print(read_features({str(path)!r}).features.shape)"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("(5, 4)", "")


def test_nothing_in_a_torch_file_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
            return open, (str(trace), "w")

    with pytest.raises(InvalidFeaturesError, match=r"io\.open"):
        read_features(torch_file(tmp_path, {"features": Attack()}))
    assert not trace.exists()


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    import zipfile

    torch = pytest.importorskip("torch")
    path = torch_file(tmp_path, torch.from_numpy(FEATURES))
    forged = tmp_path / "forged.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:8] if name.endswith("data/0") else data)
    with pytest.raises(InvalidFeaturesError, match="beyond its storage"):
        read_features(forged)


def written(data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "bag.npz").write_bytes(data)
        return folder / "bag.npz"

    return write


def cut_short(folder: Path) -> Path:
    path = npz(folder, features=FEATURES)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def cut_hdf5(folder: Path) -> Path:
    path = hdf5(folder, features=FEATURES)
    path.write_bytes(path.read_bytes()[:600])
    return path


def legacy(folder: Path) -> Path:
    torch = pytest.importorskip("torch")
    return torch_file(folder, torch.ones(2, 2), _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "missing.npz", "cannot be read"),
        (lambda folder: folder, "is a folder"),
        (written(b""), "neither .npz, .h5 nor a .pt"),
        (written(b"version https://git-lfs.github.com/spec/v1"), "Git LFS pointer"),
        (cut_short, "cut short"),
        (cut_hdf5, "cut short"),
        (legacy, "older than 1.6"),
        (lambda folder: npz(folder, embeddings=FEATURES), "no array `features`.*embeddings"),
        (lambda folder: hdf5(folder, embeddings=FEATURES), "no array `features`.*embeddings"),
        (lambda folder: npz(folder, features=FEATURES[0]), r"shape \(4,\)"),
        (lambda folder: npz(folder, features=FEATURES.reshape(5, 2, 2)), r"\(n, d\)"),
        (lambda folder: npz(folder, features=np.asarray([["a"]])), "must be numbers"),
        (lambda folder: npz(folder, features=np.asarray([[object()]])), "Python objects"),
        (
            lambda folder: npz(folder, features=FEATURES, positions=POSITIONS[:3]),
            r"`positions` .* want \(5, 2\)",
        ),
        (
            lambda folder: npz(folder, features=FEATURES, positions=POSITIONS * np.nan),
            "`positions` .* NaN",
        ),
        (lambda folder: npz(folder, features=FEATURES, group=np.zeros(5)), "as many integers"),
        (lambda folder: torch_file(folder, [1, 2]), "holds a list"),
        (lambda folder: torch_file(folder, {"a": 1}), "no array `features`"),
    ],
)
def test_what_is_no_features_file_is_refused_in_one_sentence(
    make: Callable[[Path], Path], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidFeaturesError, match=sentence) as caught:
        read_features(make(tmp_path))
    assert "\n" not in str(caught.value)
