"""A slide streamed through a wrong lamp to a real service: refused, named, marked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_service import RunningService
from small_bundle import write_small_bundle
from textured_slide import textured_slide
from tiled_tiff import write_tiled_tiff

from edge_mil.cli import main
from edge_mil.client import Client

FOV = ("--fov", "512x384")


def test_a_dim_lamp_is_noticed_and_the_right_one_is_proven(
    tmp_path: Path, edge_mil: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = textured_slide(1024, 768, margin_px=120)
    slide = write_tiled_tiff(tmp_path / "slide.tiff", pixels, 0.5)
    dim = tmp_path / "dim.json"
    dim.write_text(json.dumps({"lamp": 0.8}))
    write_small_bundle(tmp_path / "b")
    service = RunningService(tmp_path / "b", tmp_path)
    try:
        words = ("stream", slide, "--server", service.address, *FOV)
        clean = edge_mil(*words)
        assert clean["light"] == "agrees"
        assert set(clean["fields"]) == {"ACCEPTED"}

        assert main([*map(str, words), "--camera", str(dim), "--json"]) == 0
        streamed = capsys.readouterr()
        dark = json.loads(streamed.out)
        assert dark["light"] == "contradicted"
        assert set(dark["fields"]) == {"WRONG_LIGHT"}
        assert dark["score"] is None
        assert "the lamp is at 80%" in streamed.err
        assert "edge-mil calibrate flat-field" in streamed.err
        with Client(service.address) as client:
            session = client.resume(dark["session"])
            assert session.score().light == session.info().light == "contradicted"

        insisted = edge_mil(*words, "--camera", dim, "--insist-light")
        assert insisted["light"] == "contradicted"
        assert insisted["instances"] > clean["instances"]
    finally:
        assert service.stop() == 0
