from __future__ import annotations

import configparser
import importlib
import re
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

import edge_mil
from edge_mil.cli import PACKAGES
from edge_mil.cli.bench.command import GROUP

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `make wheel` builds it, without the network."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(out), str(ROOT)),
        ],
        check=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    (made,) = out.glob("*.whl")
    return made


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(*folders: str) -> set[str]:
    """Return the files under folders that git knows, as paths inside the wheel."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.removeprefix("export/") for name in listed.stdout.splitlines()}


def test_the_wheel_holds_two_packages_and_nothing_else(wheel: Path) -> None:
    top = {name.split("/")[0] for name in names(wheel)}
    assert top == {"edge_mil", "edge_mil_export", f"edge_mil-{edge_mil.__version__}.dist-info"}


def test_the_wheel_is_pure_python(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    assert tracked("edge_mil", "export/edge_mil_export") <= names(wheel)


@pytest.mark.parametrize(
    "needed",
    [
        "edge_mil/py.typed",
        "edge_mil/store/schema/0001_session.sql",
        "edge_mil/demo/bundle/bundle.json",
        "edge_mil/session/report/templates/report.html.j2",
        "edge_mil/session/report/templates/report.css",
        "edge_mil/demo/templates/picture.svg.j2",
        "edge_mil_export/fidelity/templates/fidelity.html.j2",
    ],
)
def test_what_is_not_python_travels_too(wheel: Path, needed: str) -> None:
    assert needed in names(wheel)


def test_the_demos_weights_stay_under_four_megabytes() -> None:
    files = (ROOT / "edge_mil" / "demo" / "bundle").rglob("*")
    assert sum(path.stat().st_size for path in files if path.is_file()) < 4_000_000


def test_the_wheel_carries_the_licence_and_the_commands(wheel: Path) -> None:
    info = f"edge_mil-{edge_mil.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = BytesParser().parsebytes(archive.read(f"{info}/METADATA"))
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Apache License" in licence
    assert "edge-mil = edge_mil.cli:main" in commands
    assert "edge-mil-export = edge_mil_export.cli:main" in commands


def test_the_exporter_offers_its_benchmarks(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"edge_mil-{edge_mil.__version__}.dist-info"
        points = configparser.ConfigParser()
        points.read_string(archive.read(f"{info}/entry_points.txt").decode())
    offered = dict(points[GROUP])
    assert set(offered) == {"aggregators", "extractor"}
    for module in offered.values():
        assert callable(importlib.import_module(module).add_parser)


def test_the_light_client_wants_three_packages_and_no_upper_bound(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = BytesParser().parsebytes(
            archive.read(f"edge_mil-{edge_mil.__version__}.dist-info/METADATA")
        )
    wanted = metadata.get_all("Requires-Dist") or []
    assert {re.split(r"[>;\[ ]", line)[0] for line in wanted if "extra ==" not in line} == {
        "grpcio",
        "protobuf",
        "numpy",
    }
    # Two programs on one acquisition PC must agree on grpcio: an upper bound makes them quarrel.
    assert not [line for line in wanted if "<" in line or "==" in line.split(";")[0]]


def test_no_folder_beside_the_packages_is_importable() -> None:
    for folder in ("export", "proto", "tests", "deploy", "docs"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_the_lower_bounds_are_those_of_the_generated_code() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    generated = (ROOT / "edge_mil" / "v1" / "edge_mil_pb2_grpc.py").read_text(encoding="utf-8")
    made_with = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", generated)
    assert made_with is not None
    assert f'"grpcio>={made_with[1]}"' in project
    messages = (ROOT / "edge_mil" / "v1" / "edge_mil_pb2.py").read_text(encoding="utf-8")
    protobuf = re.search(r"Protobuf Python Version: ([\d.]+)", messages)
    assert protobuf is not None
    assert f'"protobuf>={protobuf[1]}"' in project


def test_every_extra_that_an_error_names_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in set(PACKAGES.values()):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {edge_mil.__version__}" in changelog
    assert "*Scores*" in changelog
    assert "*Bundles*" in changelog


def test_every_link_between_pages_leads_to_a_file() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
