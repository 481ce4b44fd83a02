"""The generated code is that of the .proto beside it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mil.v1 import SOURCE_SHA256

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto" / "edge_mil" / "v1" / "edge_mil.proto"
GENERATED = ROOT / "edge_mil" / "v1"
GRPCIO_TOOLS = "1.66.2"


def compiler() -> str:
    """Return a Python that has the pinned compiler, or skip."""
    if named := os.environ.get("EDGE_MIL_PROTO_PYTHON"):
        return named
    try:
        found = importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != GRPCIO_TOOLS:
        pytest.skip(
            f"needs grpcio-tools {GRPCIO_TOOLS} (here: {found}): make proto-check, or name a "
            "Python that has it in EDGE_MIL_PROTO_PYTHON"
        )
    return sys.executable


def test_the_generated_code_is_of_this_proto() -> None:
    digest = hashlib.sha256(PROTO.read_bytes()).hexdigest()
    assert digest == SOURCE_SHA256, "the .proto was changed: run make proto"


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    script = ROOT / "proto" / "generate.sh"
    subprocess.run([str(script), compiler(), str(tmp_path)], check=True, cwd=ROOT, timeout=60)
    made = {path.name: path.read_bytes() for path in (tmp_path / "edge_mil" / "v1").iterdir()}
    committed = {p.name: p.read_bytes() for p in GENERATED.iterdir() if p.suffix in (".py", ".pyi")}
    assert made == committed, "the generated code is stale: run make proto"
