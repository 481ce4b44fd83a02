"""Files in the layouts of many authors give what timm's classes give; what is unclear is asked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import published_files as files
import pytest
from published_files import HEADS, PATCH, TILE_PX, WIDTH, timm_dinov3, timm_vit
from small_extractor import write_head

torch = pytest.importorskip("torch")

from edge_mil_export.cli import main  # noqa: E402
from edge_mil_export.errors import ExtractorError  # noqa: E402
from edge_mil_export.extractors import ExtractorSource, open_extractor  # noqa: E402
from edge_mil_export.extractors.options import parse_extractor_options  # noqa: E402
from edge_mil_export.extractors.published.preset_table import TABLE  # noqa: E402
from edge_mil_export.extractors.published.presets import find_preset  # noqa: E402
from edge_mil_export.extractors.timm_import import import_timm  # noqa: E402
from edge_mil_export.extractors.timm_model import build  # noqa: E402

from edge_mil.bundle import open_bundle  # noqa: E402
from edge_mil.errors import UsageError  # noqa: E402

HALF = "0.5,0.5,0.5/0.25,0.25,0.25"
COMMON = (f"num_heads={HEADS}", "norm_eps=1e-6", "activation=gelu")


def tiles_of(count: int = 2, px: int = TILE_PX) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, px, px, 3), dtype=np.uint8)


def planes(tiles: np.ndarray) -> Any:
    return (torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def opened(
    path: Path, *options: str, px: int = TILE_PX, normalise: str | None = HALF, kind: str = ""
) -> ExtractorSource:
    """Open a file as the command does: `kind` is preset:NAME or timm:NAME, else checkpoint."""
    return open_extractor(
        kind or f"checkpoint:{path}",
        weights=path if kind else None,
        tile_px=(px, px),
        normalise=normalise,
        options=parse_extractor_options(options),
    )


def saved(folder: Path, state: object) -> Path:
    path = folder / "weights.pth"
    torch.save(state, path)
    return path


def official(model: Any, tiles: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = model(planes(tiles)).numpy()
    return found


def packed() -> dict[str, Any]:
    from timm.layers import SwiGLUPacked
    from torch import nn

    return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "init_values": 1.0}


LAYOUTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "timm": (timm_vit, lambda m: m.state_dict()),
    "timm, registers without positions": (
        lambda: timm_vit(reg_tokens=4, no_embed_class=True, init_values=1.0),
        lambda m: m.state_dict(),
    ),
    "timm, registers with positions": (
        lambda: timm_vit(reg_tokens=4),
        lambda m: m.state_dict(),
    ),
    "timm, packed SwiGLU": (lambda: timm_vit(**packed()), lambda m: m.state_dict()),
    "DINOv2, w12 and w3": (
        lambda: timm_vit(**packed()),
        lambda m: files.renamed(
            m.state_dict(), [(r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3")]
        ),
    ),
    "DINOv2 in training, chunked, with heads": (
        lambda: timm_vit(init_values=1.0),
        lambda m: {
            "teacher": {
                **{f"backbone.{k}": v for k, v in files.chunked(m.state_dict()).items()},
                "backbone.mask_token": torch.ones(1, WIDTH),
                "dino_head.mlp.0.weight": torch.ones(2, WIDTH),
            },
            "iteration": 7,
        },
    ),
    "Hugging Face ViT": (timm_vit, lambda m: files.hugging_face_vit(m.state_dict())),
    "Hugging Face DINOv2": (
        lambda: timm_vit(init_values=1.0),
        lambda m: files.hugging_face_dinov2(m.state_dict()),
    ),
    "Lightning": (
        timm_vit,
        lambda m: {"state_dict": {f"model.vit.{k}": v for k, v in m.state_dict().items()}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_what_timms_own_class_gives(layout: str, tmp_path: Path) -> None:
    make, save = LAYOUTS[layout]
    model = make()
    source = opened(saved(tmp_path, save(model)), *COMMON, "pooling=cls")
    np.testing.assert_allclose(source.features(tiles_of()), official(model, tiles_of()), atol=1e-4)


@pytest.mark.parametrize("save", [files.open_clip, files.hugging_face_clip])
def test_a_clip_tower_gives_what_timms_own_class_gives(
    save: Callable[[Any], Any], tmp_path: Path
) -> None:
    model = timm_vit(pre_norm=True, act_layer="quick_gelu")
    state = save({k: v for k, v in model.state_dict().items() if k != "patch_embed.proj.bias"})
    options = (f"num_heads={HEADS}", "norm_eps=1e-6", "activation=quick_gelu")
    path = saved(tmp_path, state)
    source = opened(path, *options, "pooling=cls")
    np.testing.assert_allclose(source.features(tiles_of()), official(model, tiles_of()), atol=1e-4)
    with pytest.raises(UsageError, match=r"pooling=patch_mean; it can by cls\."):
        opened(path, *options, "pooling=patch_mean")


@pytest.mark.parametrize("save", [files.meta_dinov3, files.hugging_face_dinov3])
def test_dinov3_gives_what_timms_own_class_gives(
    save: Callable[[Any], Any], tmp_path: Path
) -> None:
    model = timm_dinov3()
    more = () if save is files.meta_dinov3 else ("num_heads=2",)
    source = opened(
        saved(tmp_path, save(model)), *more, "norm_eps=1e-5", "activation=gelu", "pooling=cls"
    )
    np.testing.assert_allclose(source.features(tiles_of()), official(model, tiles_of()), atol=1e-4)


def test_poolings_are_means_of_the_tokens_that_their_names_say(tmp_path: Path) -> None:
    model = timm_vit(reg_tokens=2)
    with torch.inference_mode():
        tokens = model.forward_features(planes(tiles_of())).numpy()
    path = saved(tmp_path, model.state_dict())
    wanted = {
        "patch_mean": tokens[:, 3:].mean(1),
        "token_mean": tokens.mean(1),
        "cls_patch_mean": np.concatenate([tokens[:, 0], tokens[:, 3:].mean(1)], axis=1),
    }
    for pooling, expected in wanted.items():
        found = opened(path, *COMMON, f"pooling={pooling}").features(tiles_of())
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_resnet_and_its_cut_give_what_timms_own_class_gives(tmp_path: Path) -> None:
    model = build("resnet18", (64, 64))
    files.rough(model, torch.Generator().manual_seed(1))
    state = {f"module.encoder_q.{k}": v for k, v in model.state_dict().items()}
    other = {f"module.encoder_k.{k}": v + 1 for k, v in model.state_dict().items()}
    path = saved(tmp_path, {"state_dict": {**state, **other, "module.queue": torch.ones(2, 2)}})
    tiles = tiles_of(px=64)
    source = opened(path, "weights=encoder_q", px=64)
    wanted = official(model, tiles)
    np.testing.assert_allclose(source.features(tiles), wanted, rtol=1e-4, atol=1e-4 * wanted.max())
    assert set(source.left_out) == {"encoder_k", "queue"}
    model.layer4 = torch.nn.Identity()
    cut = opened(path, "weights=encoder_q", "cut=layer3", px=64).features(tiles)
    wanted = official(model, tiles)
    np.testing.assert_allclose(cut, wanted, rtol=1e-4, atol=1e-4 * wanted.max())
    with pytest.raises(UsageError, match="weights=encoder_q or weights=encoder_k"):
        opened(path, px=64)


def test_a_densenet_pools_as_torchvision_does_and_kimianet_without_the_last_relu(
    tmp_path: Path,
) -> None:
    model = import_timm().models.densenet.DenseNet(4, block_config=(2, 2), num_classes=0).eval()
    files.rough(model, torch.Generator().manual_seed(1))
    tiles = tiles_of(px=64)
    path = saved(tmp_path, {**model.state_dict(), "classifier.weight": torch.ones(2, 14)})
    source = opened(path, px=64)
    np.testing.assert_allclose(source.features(tiles), official(model, tiles), rtol=1e-4, atol=1e-4)
    kimia = {
        re.sub(r"^features\.", "module.model.0.", key): value
        for key, value in model.state_dict().items()
    }
    path = saved(tmp_path, {**kimia, "module.fc_4.weight": torch.ones(30, 14)})
    source = opened(path, px=64)
    model.features.norm5.act = torch.nn.Identity()
    np.testing.assert_allclose(source.features(tiles), official(model, tiles), rtol=1e-4, atol=1e-4)
    assert source.left_out == ("fc_4",)


def test_everything_that_is_missing_is_asked_in_one_sentence(tmp_path: Path) -> None:
    path = saved(tmp_path, timm_vit().state_dict())
    with pytest.raises(UsageError) as caught:
        opened(path, px=64, normalise=None)
    text = str(caught.value)
    for word in (
        "num_heads= (a divisor of the width 32: 1, 2, 4, 8, 16)",
        "norm_eps= (1e-6",
        "activation= (gelu, or quick_gelu",
        "pooling= (cls, cls_patch_mean, patch_mean, token_mean)",
        "interpolation= (timm, dinov2, dinov2_antialias, dino, transformers, for 4x4 to 8x8)",
        "--normalise (R,G,B/R,G,B",
    ):
        assert word in text
    assert "\n" not in text
    for option in (*COMMON, "pooling=cls"):
        rest = [o for o in (*COMMON, "pooling=cls") if o != option]
        with pytest.raises(UsageError, match=option.split("=")[0]):
            opened(path, *rest)


def test_student_and_teacher_are_asked_about_and_named(tmp_path: Path) -> None:
    teacher, student = timm_vit().state_dict(), timm_vit(img_size=64).state_dict()
    both = {
        "student": {f"module.backbone.{k}": v for k, v in student.items()},
        "teacher": {f"backbone.{k}": v for k, v in teacher.items()},
    }
    path = saved(tmp_path, both)
    with pytest.raises(UsageError, match="weights=student or weights=teacher"):
        opened(path, *COMMON, "pooling=cls")
    source = opened(path, *COMMON, "pooling=cls", "weights=teacher")
    assert "weights teacher (option)" in source.facts
    assert "student" in source.left_out


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"blocks.0.attn.q_norm.weight": torch.ones(8)}, (), "has beside it blocks.0.attn.q_norm"),
        ({"norm.bias": None}, (), r"lacks norm\.bias"),
        ({"blocks.1.mlp.fc2.weight": None}, (), r"lacks blocks\.1\.fc2\.weight"),
        ({"pos_embed": torch.ones(1, 12, WIDTH)}, (), "12 entries"),
        ({"pos_embed": None}, (), "lacks its position embedding"),
        ({"patch_embed.proj.weight": torch.ones(4)}, (), "shapes in weights.pth are not those of"),
        ({"blocks.0.attn.qkv.weight": torch.ones(4, 4)}, (), "has other shapes of blocks.0.qkv"),
        ({}, ("num_heads=5",), "num_heads=5 does not divide the width 32"),
        ({}, ("pooling=projected",), r"cannot be pooled by pooling=projected"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(
    change: dict[str, Any], options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    state = {**timm_vit().state_dict(), **change}
    path = saved(tmp_path, {key: value for key, value in state.items() if value is not None})
    given = {o.split("=")[0]: o for o in (*COMMON, "pooling=cls", *options)}
    with pytest.raises((ExtractorError, UsageError), match=sentence) as caught:
        opened(path, *given.values())
    assert "\n" not in str(caught.value)


def test_tiles_that_the_positions_are_not_for_need_a_rule(tmp_path: Path) -> None:
    path = saved(tmp_path, timm_vit().state_dict())
    options = (*COMMON, "pooling=cls")
    with pytest.raises(UsageError, match="have 8x8; give --tile-px 32x32"):
        opened(path, *options, "interpolation=none", px=64)
    found = {
        rule: opened(path, *options, f"interpolation={rule}", px=64).features(tiles_of(1, 64))
        for rule in ("timm", "dinov2", "dinov2_antialias", "dino", "transformers")
    }
    assert np.array_equal(found["dinov2"], found["dino"])
    assert np.array_equal(found["timm"], found["dinov2_antialias"])
    assert np.abs(found["dinov2"] - found["transformers"]).max() > 1e-3
    with pytest.raises(UsageError, match=f"no whole number of weights.pth's patches of {PATCH}x"):
        opened(path, *options, px=TILE_PX + 1)


def test_a_folder_of_a_model_hub_is_read_as_it_stands(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = timm_vit()
    state = files.hugging_face_vit(model.state_dict())
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    config = {"num_attention_heads": HEADS, "layer_norm_eps": 1e-6, "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    beside = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(beside))
    (tmp_path / "README.md").write_text(
        "---\nlicense: cc-by-nc-nd-4.0\ntags: [x]\n---\n# A model\n"
    )
    source = opened(tmp_path, "pooling=cls", normalise=None)
    np.testing.assert_allclose(source.features(tiles_of()), official(model, tiles_of()), atol=1e-4)
    assert source.licence == "cc-by-nc-nd-4.0"
    assert f"num_heads {HEADS} (config.json)" in source.facts
    config["hidden_act"] = "gelu_pytorch_tanh"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExtractorError, match="hidden_act=gelu_pytorch_tanh"):
        opened(tmp_path, "pooling=cls", normalise=None)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "other: dinov3-license"),
        ("---\nlicense: apache-2.0\nextra_gated_prompt: sign\n---\n", "apache-2.0, gated"),
        ("# A program\nlicense: mit\n", ""),
        ("---\ntags: [x]\n---\nlicense: mit\n", ""),
    ],
)
def test_a_licence_is_that_of_the_model_card_beside_the_weights(
    card: str, licence: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, timm_vit().state_dict())
    (tmp_path / "README.md").write_text(card)
    assert opened(path, *COMMON, "pooling=cls").licence == licence


@pytest.mark.slow
def test_a_bundle_of_a_weights_file_is_not_passed_on_unless_its_licence_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, head = saved(tmp_path, build("resnet18", (32, 32)).state_dict()), tmp_path / "head.pt"
    write_head(head, 512)
    out = str(tmp_path / "made")
    words = ["bundle", "--extractor", "timm:resnet18", "--extractor-weights", str(path)]
    words += ["--aggregator", str(head), "--tile-px", "32", "--mpp", "0.5", "--out", out]
    assert main(words) == 0
    captured = capsys.readouterr()
    manifest = open_bundle(out).manifest
    assert manifest.licences.extractor == "unknown, not to be passed on"
    assert not manifest.redistributable
    assert "mean and standard deviation by timm" in captured.out


def test_a_preset_settles_what_the_file_cannot_tell(tmp_path: Path) -> None:
    model = timm_vit(init_values=1.0, reg_tokens=8, no_embed_class=True, **{
        k: v for k, v in packed().items() if k != "init_values"
    })  # fmt: skip
    path = saved(tmp_path, model.state_dict())
    with pytest.raises(UsageError, match="UNI2-h is 1536 wide with 24 blocks"):
        opened(path, kind="preset:UNI2_h", normalise=None)
    source = opened(path, f"num_heads={HEADS}", kind="preset:uni2-h", normalise=None)
    assert source.licence.startswith("CC-BY-NC-ND")
    assert source.normalisation is not None
    assert source.normalisation.mean == (0.485, 0.456, 0.406)
    assert any(fact.startswith("pooling cls (preset uni2-h: ") for fact in source.facts)
    with pytest.raises(UsageError, match="near it are uni"):
        find_preset("uni22-h")
    with pytest.raises(ExtractorError, match="is a vit, and MoCo v2 is a resnet"):
        opened(path, kind="preset:moco-v2-rn50", normalise=None)


@pytest.mark.parametrize("preset", TABLE, ids=lambda preset: preset.name)
def test_a_preset_names_its_sources_and_is_whole(preset: Any) -> None:
    assert preset.source
    assert preset.normal_source
    if preset.width:
        assert preset.depth
        assert preset.patch
        assert preset.width % preset.num_heads == 0
        assert preset.norm_eps > 0
        # DINOv3 has no position embedding that could be brought to another grid.
        assert preset.interpolation or preset.family == "DINOv3"
    parse_extractor_options([f"{k}={v}" for k, v in preset.facts().items() if k != "normalisation"])


def test_timm_names_do_not_settle_what_their_weights_disagree_about(tmp_path: Path) -> None:
    path = saved(tmp_path, build("vit_tiny_patch16_224", (224, 224)).state_dict())
    source = opened(path, px=224, kind="timm:vit_tiny_patch16_224.augreg_in21k", normalise=None)
    assert source.normalisation is not None
    assert source.normalisation.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UsageError, match="interpolation="):
        opened(path, px=64, kind="timm:vit_tiny_patch16_224")
    small = saved(tmp_path, timm_vit().state_dict())
    with pytest.raises(ExtractorError, match="that is 192 wide with 12 blocks"):
        opened(small, px=224, kind="timm:vit_tiny_patch16_224")


def test_moco_v3_does_not_get_the_six_heads_of_timms_name(tmp_path: Path) -> None:
    state = build("vit_tiny_patch16_224", (224, 224)).state_dict()
    both = {f"module.{n}_encoder.{k}": v for n in ("base", "momentum") for k, v in state.items()}
    path = saved(tmp_path, {"state_dict": both})
    with pytest.raises(UsageError, match="num_heads="):
        opened(path, "weights=base", px=224, kind="timm:vit_tiny_patch16_224")
    source = opened(path, "weights=base", "num_heads=12", px=224, kind="timm:vit_tiny_patch16_224")
    assert "num_heads 12 (option)" in source.facts


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--extractor", "timm:resnet18x"], "near it are resnet18"),
        (["--extractor", "preset:uni3"], "near it are uni"),
        (["--extractor", "checkpoint:nowhere.pth"], "no file nowhere.pth"),
        (["--extractor", "onnx:net.onnx"], "--normalise"),
        (["--extractor-option", "heads=3"], "the options are num_heads"),
        (["--extractor-option", "pooling=best"], "no pooling=best"),
        (["--extractor-option", "norm_eps=-1"], "norm_eps=-1"),
        (["--normalise", "0.5"], "--normalise 0.5"),
        (["--weights", "best"], "no weights=best"),
        (["--aggregator", "nowhere.pt"], "no checkpoint nowhere.pt"),
        (["--mpp", "20"], "was a magnification of 20x meant"),
        (["--tile-px", "big"], "--tile-px is one number"),
        (["--precision", "int4"], "no precision 'int4'"),
        (["--calibration", "nowhere"], "nowhere is no folder"),
        (["--classes", "a,,b"], "an empty name"),
        (["--licence", "MIT", "--licence", "BSD"], "twice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_the_arguments_is_told_before_torch_is_imported(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "head.pt").write_bytes(b"")
    (tmp_path / "weights.pth").write_bytes(b"")
    given = {
        "--extractor": "checkpoint:weights.pth",
        "--aggregator": "head.pt",
        "--tile-px": "224",
        "--mpp": "0.5",
        "--out": "made",
    }
    given = {name: value for name, value in given.items() if name not in words}
    needs_weights = words[1].startswith(("timm:", "preset:"))
    more = ["--extractor-weights", "weights.pth"] if needs_weights else []
    command = ["bundle", *(word for pair in given.items() for word in pair), *words, *more]
    code = (
        "import sys; from edge_mil_export.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules or 'onnx' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "\n" not in done.stderr.strip()


def test_a_pixel_size_with_its_unit_is_taken_as_it_stands() -> None:
    from edge_mil_export.bundle.early_checks import parse_mpp

    assert parse_mpp("20um") == 20
    assert parse_mpp("0.5") == 0.5
    with pytest.raises(UsageError, match="is no number"):
        parse_mpp("20x")
