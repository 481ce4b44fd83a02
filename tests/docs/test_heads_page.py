"""The head of docs/heads.md, registered and exported as it stands, then scored live."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_mil import cli
from edge_mil.aggregators.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "heads.md"


def test_a_head_of_ones_own_is_exported_and_scores_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    state = torch.load(tmp_path / "mine.pt", weights_only=True)
    features = np.random.default_rng(0).standard_normal((50, 512)).astype(np.float32)
    np.savez(tmp_path / "bag.npz", features=features)
    words = ["score", str(tmp_path / "mine"), str(tmp_path / "bag.npz"), "--stream", "7", "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)["score"]["logits"]
    x = torch.from_numpy(features)
    h = torch.relu(x @ state["trunk.weight"].T + state["trunk.bias"])
    share = torch.softmax(h @ state["score.weight"].T + state["score.bias"], dim=0)
    wanted = (share * h).sum(dim=0) @ state["top.weight"].T + state["top.bias"]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_the_page_lists_every_head() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [entry.name for entry in CATALOGUE if f"| {entry.name} |" not in text] == []
