from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from bundle_samples import EXTRACTOR_FILES, sample_bundle

from edge_mil.bundle import Bundle, open_bundle, pack_bundle
from edge_mil.errors import BundleError


@pytest.fixture
def gated(tmp_path: Path) -> Bundle:
    """A bundle whose extractor may not be passed on."""
    return sample_bundle(tmp_path / "gated", redistributable=False)


def unzip(packed: Path, folder: Path) -> Path:
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    return folder


def test_the_same_bundle_packs_to_the_same_bytes(tmp_path: Path) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    first = pack_bundle(bundle, tmp_path / "a.milb").read_bytes()
    assert pack_bundle(bundle, tmp_path / "b.milb").read_bytes() == first


def test_a_gated_extractor_stays_behind_and_its_digests_travel(
    gated: Bundle, tmp_path: Path
) -> None:
    packed = open_bundle(pack_bundle(gated, tmp_path / "gated.milb"))
    assert packed.digest == gated.digest
    assert packed.absent == tuple(sorted(EXTRACTOR_FILES))
    assert packed.read("attend.onnx") == b"attend"
    with pytest.raises(BundleError, match=r"saved features can be scored, images cannot") as caught:
        packed.read("extractor.onnx")
    assert gated.manifest.files["extractor.onnx"] in str(caught.value)


def test_the_receivers_own_export_takes_its_place(gated: Bundle, tmp_path: Path) -> None:
    folder = unzip(pack_bundle(gated, tmp_path / "gated.milb"), tmp_path / "received")
    for name in EXTRACTOR_FILES:
        (folder / name).write_bytes(gated.read(name))
    assert open_bundle(folder).absent == ()


def test_another_export_in_its_place_is_refused(gated: Bundle, tmp_path: Path) -> None:
    folder = unzip(pack_bundle(gated, tmp_path / "gated.milb"), tmp_path / "received")
    (folder / "extractor.onnx").write_bytes(b"another network")
    with pytest.raises(BundleError, match="is not the file that this bundle was made with"):
        open_bundle(folder)


def test_only_the_extractor_may_stay_behind(gated: Bundle) -> None:
    (gated.path / "attend.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks attend\.onnx"):
        open_bundle(gated.path)


def test_a_signature_travels_with_the_bundle(tmp_path: Path) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    (bundle.path / "signature").write_bytes(b"signed")
    packed = open_bundle(pack_bundle(open_bundle(bundle.path), tmp_path / "sample.milb"))
    assert packed.signature() == b"signed"
    assert packed.digest == bundle.digest


def test_a_failed_pack_leaves_the_earlier_file(tmp_path: Path) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    out = tmp_path / "sample.milb"
    out.write_bytes(b"earlier")
    (bundle.path / "attend.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="was changed"):
        pack_bundle(bundle, out)
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.glob("*.part")] == []


@pytest.mark.parametrize("out", [".", "nowhere/sample.milb"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, out: str) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    with pytest.raises(BundleError, match="name another --out"):
        pack_bundle(bundle, tmp_path / out)
