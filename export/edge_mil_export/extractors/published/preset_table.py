"""What the authors of published extractors use: heads, pooling, preprocessing, licence.

A preset settles everything that the file cannot tell. Each entry names the code that its facts
come from, and where its mean and standard deviation are written. Licences are those of the
weights; "" where the authors state none that we have read. It is longer than 300 lines because it
is one table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_mil_export.extractors.source import Normalisation

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
LUNIT = Normalisation((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
BIOPTIMUS = Normalisation((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
TRIDENT = "mahmoodlab/TRIDENT, trident/patch_encoder_models/load.py"
LUNIT_PAGE = "lunit-io/benchmark-ssl-pathology, its release page"
NO_DERIVATIVES = "CC-BY-NC-ND-4.0, gated"
"""Gated: the hub hands the file out to named persons only, so a bundle is not passed on either."""
OWKIN = "other: Owkin non-commercial licence"


@dataclass(frozen=True, slots=True)
class Preset:
    """A published extractor.

    Attributes:
        name: As `preset:NAME` takes it.
        family: What its authors call it.
        source: Code that the facts come from.
        normal_source: Where mean and standard deviation are written.
        normalisation: Of 0 to 1, RGB.
        licence: Of the weights; "" where we know none.
        kind: vit, swin, resnet or densenet.
        width, depth, patch, registers: Of a transformer, to tell whether a file is of this
            model; 0 for others.
        num_heads: Attention heads; 0 where the file tells or there is no attention.
        norm_eps: Of the layer norms; 0 without.
        pooling: What becomes of the tokens or the last feature map.
        interpolation: Rule for another grid; "" where there is no position embedding.
        activation: gelu or quick_gelu.
        weights: Which network the authors use, where the file holds several.
        cut: The last stage that is run; "" runs all.
    """

    name: str
    family: str
    source: str
    normal_source: str
    normalisation: Normalisation
    licence: str = ""
    kind: str = "vit"
    width: int = 0
    depth: int = 0
    patch: int = 0
    registers: int = 0
    num_heads: int = 0
    norm_eps: float = 0.0
    pooling: str = "cls"
    interpolation: str = ""
    activation: str = "gelu"
    weights: str = ""
    cut: str = ""

    def facts(self) -> dict[str, object]:
        """Return what it settles, as `Facts.sources` takes it."""
        named = {
            "num_heads": self.num_heads,
            "norm_eps": self.norm_eps,
            "activation": self.activation,
            "pooling": self.pooling,
            "interpolation": self.interpolation,
            "weights": self.weights,
            "cut": self.cut,
        }
        return {k: v for k, v in named.items() if v} | {"normalisation": self.normalisation}


def _timm(name: str, family: str, source: str, **facts: object) -> Preset:
    """Return a preset of a model that its authors build with timm."""
    base = Preset(name, family, source, source, IMAGENET, norm_eps=1e-6, interpolation="timm")
    return replace(base, **facts)  # type: ignore[arg-type]


def _hub(name: str, width: int, depth: int, heads: int, registers: int) -> Preset:
    """Return a preset of DINOv2's hub."""
    source = "facebookresearch/dinov2, dinov2/models/vision_transformer.py and dinov2/hub"
    return Preset(
        name,
        "DINOv2",
        source,
        "facebookresearch/dinov2, dinov2/data/transforms.py",
        IMAGENET,
        "Apache-2.0",
        width=width,
        depth=depth,
        patch=14,
        registers=registers,
        num_heads=heads,
        norm_eps=1e-6,
        interpolation="dinov2_antialias" if registers else "dinov2",
    )


def _dino(name: str, width: int, heads: int, patch: int) -> Preset:
    """Return a preset of DINO."""
    source = "facebookresearch/dino, vision_transformer.py"
    return Preset(
        name,
        "DINO",
        source,
        "facebookresearch/dino, eval_linear.py",
        IMAGENET,
        "Apache-2.0",
        width=width,
        depth=12,
        patch=patch,
        num_heads=heads,
        norm_eps=1e-6,
        interpolation="dino",
        weights="teacher",
    )


def _dinov3(name: str, width: int, depth: int, heads: int) -> Preset:
    """Return a preset of DINOv3's web-image models."""
    return Preset(
        name,
        "DINOv3",
        "facebookresearch/dinov3, dinov3/hub/backbones.py (layernormbf16 has eps 1e-5)",
        "facebookresearch/dinov3, README.md (web images)",
        IMAGENET,
        "DINOv3 License, gated",
        width=width,
        depth=depth,
        patch=16,
        registers=4,
        num_heads=heads,
        norm_eps=1e-5,
    )


def _resnet(name: str, family: str, source: str, **facts: object) -> Preset:
    """Return a preset of a ResNet-50."""
    base = Preset(name, family, source, source, IMAGENET, kind="resnet", pooling="average")
    return replace(base, **facts)  # type: ignore[arg-type]


_LARGE_16 = {"width": 1024, "depth": 24, "patch": 16, "num_heads": 16}
_HUGE_14 = {"width": 1280, "depth": 32, "patch": 14, "num_heads": 16}
_GIANT = {"width": 1536, "depth": 40, "num_heads": 24}
_SMALL = {"width": 384, "depth": 12, "num_heads": 6}
_UNI = "mahmoodlab/UNI, uni/get_encoder/get_encoder.py"
_BLOOM = "marrlab/DinoBloom, dinov2/eval/models/return_model.py"
_BLOOM_FACTS = {"interpolation": "dinov2", "licence": "Apache-2.0", "weights": "teacher"}
_LUNIT_FACTS = {"normalisation": LUNIT, "normal_source": LUNIT_PAGE}
_LUNIT = "lunit-io/benchmark-ssl-pathology, README.md"

TABLE = (
    _timm("uni", "UNI", _UNI, licence=NO_DERIVATIVES, **_LARGE_16),
    _timm(
        "uni2-h",
        "UNI2-h",
        _UNI,
        licence=NO_DERIVATIVES,
        width=1536,
        depth=24,
        patch=14,
        registers=8,
        num_heads=24,
    ),
    _timm("mstar", "mSTAR", "Innse/mSTAR, Feature_extract", licence=NO_DERIVATIVES, **_LARGE_16),
    _timm(
        "virchow",
        "Virchow",
        TRIDENT,
        licence="Apache-2.0, gated",
        pooling="cls_patch_mean",
        **_HUGE_14,
    ),
    _timm(
        "virchow2",
        "Virchow2",
        TRIDENT,
        licence=NO_DERIVATIVES,
        pooling="cls_patch_mean",
        registers=4,
        **_HUGE_14,
    ),
    *(
        _timm(
            f"h-optimus-{number}",
            f"H-optimus-{number}",
            "bioptimus/releases, the model card of H-optimus-0",
            licence=licence,
            normalisation=BIOPTIMUS,
            patch=14,
            registers=4,
            **_GIANT,
        )
        for number, licence in ((0, "Apache-2.0, gated"), (1, NO_DERIVATIVES))
    ),
    _timm(
        "gigapath",
        "Prov-GigaPath, tile encoder",
        "prov-gigapath/prov-gigapath, README.md",
        licence="Apache-2.0, gated",
        patch=16,
        **_GIANT,
    ),
    Preset(
        "phikon",
        "Phikon",
        "owkin/HistoSSLscaling, README.md; huggingface/transformers, modeling_vit.py",
        TRIDENT,
        IMAGENET,
        OWKIN,
        width=768,
        depth=12,
        patch=16,
        num_heads=12,
        norm_eps=1e-12,
        interpolation="transformers",
    ),
    Preset(
        "phikon-v2",
        "Phikon-v2",
        "owkin/HistoSSLscaling, README.md; huggingface/transformers, modeling_dinov2.py",
        TRIDENT,
        IMAGENET,
        OWKIN,
        width=1024,
        depth=24,
        patch=16,
        num_heads=16,
        norm_eps=1e-6,
        interpolation="transformers",
    ),
    Preset(
        "plip",
        "PLIP",
        "Innse/mSTAR, Feature_extract/models/plip.py; huggingface/transformers, modeling_clip.py",
        "openai/CLIP, clip/clip.py",
        CLIP,
        width=768,
        depth=12,
        patch=32,
        num_heads=12,
        norm_eps=1e-5,
        pooling="projected",
        activation="quick_gelu",
        interpolation="transformers",
    ),
    Preset(
        "conch",
        "CONCH",
        "mahmoodlab/CONCH, conch/open_clip_custom/coca_model.py and vision_tower.py",
        "mahmoodlab/CONCH, conch/open_clip_custom/constants.py",
        CLIP,
        NO_DERIVATIVES,
        width=768,
        depth=12,
        patch=16,
        num_heads=12,
        norm_eps=1e-6,
        pooling="attention",
        interpolation="timm",
    ),
    Preset(
        "ctranspath",
        "CTransPath",
        "Xiyue-Wang/TransPath, ctran.py",
        "Xiyue-Wang/TransPath, get_features_CTransPath.py",
        IMAGENET,
        kind="swin",
        pooling="token_mean",
    ),
    Preset(
        "mocov3-vits16",
        "MoCo v3 ViT-S of TransPath",
        "Xiyue-Wang/TransPath, vits.py (twelve heads)",
        "Xiyue-Wang/TransPath, get_features_mocov3.py",
        IMAGENET,
        width=384,
        depth=12,
        patch=16,
        num_heads=12,
        norm_eps=1e-6,
        interpolation="timm",
        weights="base",
    ),
    _hub("dinov2-vits14", 384, 12, 6, 0),
    _hub("dinov2-vitb14", 768, 12, 12, 0),
    _hub("dinov2-vitl14", 1024, 24, 16, 0),
    _hub("dinov2-vitg14", 1536, 40, 24, 0),
    _hub("dinov2-vits14-reg4", 384, 12, 6, 4),
    _hub("dinov2-vitb14-reg4", 768, 12, 12, 4),
    _hub("dinov2-vitl14-reg4", 1024, 24, 16, 4),
    _hub("dinov2-vitg14-reg4", 1536, 40, 24, 4),
    _timm("dinobloom-s", "DinoBloom-S", _BLOOM, patch=14, **_BLOOM_FACTS, **_SMALL),
    _timm(
        "dinobloom-b",
        "DinoBloom-B",
        _BLOOM,
        width=768,
        depth=12,
        patch=14,
        num_heads=12,
        **_BLOOM_FACTS,
    ),
    _timm("dinobloom-l", "DinoBloom-L", _BLOOM, **_BLOOM_FACTS, **{**_LARGE_16, "patch": 14}),
    _timm("dinobloom-g", "DinoBloom-G", _BLOOM, patch=14, **_BLOOM_FACTS, **_GIANT),
    _dino("dino-vits16", 384, 6, 16),
    _dino("dino-vits8", 384, 6, 8),
    _dino("dino-vitb16", 768, 12, 16),
    _dino("dino-vitb8", 768, 12, 8),
    _dinov3("dinov3-vits16", 384, 12, 6),
    _dinov3("dinov3-vitb16", 768, 12, 12),
    _dinov3("dinov3-vitl16", 1024, 24, 16),
    _timm("lunit-dino-s8", "Lunit DINO ViT-S/8", _LUNIT, patch=8, **_LUNIT_FACTS, **_SMALL),
    _timm("lunit-dino-s16", "Lunit DINO ViT-S/16", _LUNIT, patch=16, **_LUNIT_FACTS, **_SMALL),
    _resnet("lunit-bt-rn50", "Lunit Barlow Twins", _LUNIT, **_LUNIT_FACTS),
    _resnet("lunit-mocov2-rn50", "Lunit MoCo v2", _LUNIT, **_LUNIT_FACTS),
    _resnet("lunit-swav-rn50", "Lunit SwAV", _LUNIT, **_LUNIT_FACTS),
    _resnet(
        "moco-v2-rn50", "MoCo v2", "facebookresearch/moco, main_lincls.py", weights="encoder_q"
    ),
    _resnet("barlowtwins-rn50", "Barlow Twins", "facebookresearch/barlowtwins, main.py"),
    _resnet("swav-rn50", "SwAV", "facebookresearch/swav, src/resnet50.py"),
    _resnet("retccl", "RetCCL", "Xiyue-Wang/RetCCL, get_feature.py"),
    _resnet(
        "clam-resnet50",
        "ResNet-50 up to its third stage, as CLAM uses it",
        "mahmoodlab/CLAM, models/timm_wrapper.py",
        cut="layer3",
    ),
    _resnet(
        "kimianet",
        "KimiaNet",
        "KimiaLabMayo/KimiaNet, KimiaNet_PyTorch_Feature_Extraction.py",
        kind="densenet",
    ),
)
