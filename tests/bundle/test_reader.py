from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import sample_bundle
from small_bundle import write_small_bundle

from edge_mil.bundle import SCHEMA_VERSION, Manifest, open_bundle, pack_bundle
from edge_mil.errors import BundleError, BundleVersionError

DEMO = Path(__file__).resolve().parents[2] / "edge_mil" / "demo" / "bundle"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sample_bundle(tmp_path / "sample").path


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `bundle.json` as someone with a text editor would."""
    raw = json.loads((folder / "bundle.json").read_text())
    change(raw)
    (folder / "bundle.json").write_text(json.dumps(raw))


def test_an_untouched_bundle_opens_and_its_files_can_be_read(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.manifest.name == "sample"
    assert bundle.read("attend.onnx") == b"attend"
    assert bundle.digest.startswith("sha256:")
    assert len(bundle.digest) == len("sha256:") + 64


@pytest.mark.parametrize("name", ["extractor.onnx", "attend.onnx", "model_card.md"])
def test_one_changed_byte_is_refused_and_the_file_named(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[0] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} of sample was changed after its export"):
        open_bundle(folder)


def test_a_change_after_opening_is_seen_when_the_file_is_read(folder: Path) -> None:
    bundle = open_bundle(folder)
    (folder / "attend.onnx").write_bytes(b"attenD")
    with pytest.raises(BundleError, match="was changed"):
        bundle.read("attend.onnx")


@pytest.mark.parametrize("name", ["extractor.onnx", "classify.onnx"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"sample lacks {name}, which its bundle.json lists"):
        open_bundle(folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    (folder / "payload.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"holds payload\.bin, which its bundle\.json does not"):
        open_bundle(folder)


def test_what_a_file_browser_leaves_behind_is_ignored(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"x")
    open_bundle(folder)


def test_a_newer_schema_version_asks_for_an_update(folder: Path) -> None:
    rewrite(folder, lambda raw: raw.update(schema_version=SCHEMA_VERSION + 1, surprise=1))
    with pytest.raises(BundleVersionError, match="update edge_mil on this device"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(tile_pxx=3), "unknown field `tile_pxx`"),
        (lambda raw: raw["input"].update(mppp=3), r"unknown field `mppp` - at `\$\.input`"),
        (
            lambda raw: raw["task"].pop("classes"),
            r"missing required field `classes` - at `\$\.task`",
        ),
        (
            lambda raw: raw["input"].update(mpp="0.5"),
            r"Expected `float`, got `str` - at `\$\.input\.mpp`",
        ),
        (lambda raw: raw["input"].update(mpp=0), "input.mpp is 0"),
        (lambda raw: raw["task"].update(kind="guess"), "task.kind is 'guess'"),
        (lambda raw: raw["aggregator"].update(feature_dim=9), "width 8 and the aggregator wants 9"),
        (lambda raw: raw["aggregator"]["graphs"].update(attend="x.onnx"), "names the graph x.onnx"),
        (lambda raw: raw.pop("schema_version"), "names no schema_version"),
        (lambda raw: raw.update(schema_version=True), "names no schema_version"),
        (
            lambda raw: raw.update(input=[]),
            r"Expected `object \| null`, got `array` - at `\$\.input`",
        ),
        (lambda raw: raw["files"].update({"../outside": "00"}), "is no name of a file"),
    ],
)
def test_a_manifest_that_is_not_in_order_is_one_sentence(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"{", b'{"name": ' + b"[" * 100_000, b'{"schema_version": 1} {}', b"\xff"],
    ids=["cut off", "nested too deep", "two documents", "not UTF-8"],
)
def test_a_manifest_that_is_no_json_is_one_sentence(folder: Path, text: bytes) -> None:
    (folder / "bundle.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"bundle\.json is not (JSON|in order)") as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_manifest_is_written_to_the_bytes_that_it_was_read_from() -> None:
    data = (DEMO / "bundle.json").read_bytes()
    assert Manifest.from_json(data).to_json() == data


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no bundle\.json"):
        open_bundle(tmp_path)


def test_a_path_with_nothing_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no bundle at"):
        open_bundle(tmp_path / "nothing")


def test_a_file_that_is_no_zip_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sample.milb").write_bytes(b"not a zip")
    with pytest.raises(BundleError, match="neither a folder nor a bundle packed"):
        open_bundle(tmp_path / "sample.milb")


def test_folder_and_zip_have_the_same_digest_and_files(folder: Path, tmp_path: Path) -> None:
    whole = open_bundle(folder)
    packed = open_bundle(pack_bundle(whole, tmp_path / "sample.milb"))
    assert packed.digest == whole.digest
    assert packed.manifest == whole.manifest
    assert all(packed.read(name) == whole.read(name) for name in whole.manifest.files)


def test_a_changed_byte_inside_the_zip_is_refused(folder: Path, tmp_path: Path) -> None:
    packed = pack_bundle(open_bundle(folder), tmp_path / "sample.milb")
    changed = tmp_path / "changed.milb"
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data.upper() if name == "attend.onnx" else data)
    with pytest.raises(BundleError, match=r"attend\.onnx of changed\.milb was changed"):
        open_bundle(changed)


def test_a_compressed_zip_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.milb"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    with pytest.raises(BundleError, match=r"compressed zip.*edge-mil bundle pack"):
        open_bundle(target)


def test_the_digest_is_that_of_the_manifests_own_bytes(folder: Path, tmp_path: Path) -> None:
    # The same values with other white space: another digest, and packing keeps those bytes.
    raw = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(raw, indent=7))
    whole = open_bundle(folder)
    packed = open_bundle(pack_bundle(whole, tmp_path / "sample.milb"))
    assert packed.digest == whole.digest
    with zipfile.ZipFile(tmp_path / "sample.milb") as archive:
        assert archive.read("bundle.json") == (folder / "bundle.json").read_bytes()


@pytest.mark.parametrize("name", ["\x1b[2Jsmall", "a\nb", "\u202ellams", "x" * 257])
def test_a_name_that_cannot_be_printed_is_no_name_of_a_bundle(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"name .*[Ee]xport the bundle again"):
        write_small_bundle(tmp_path / "small", name=name)
