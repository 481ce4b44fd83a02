from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mil.cli import main
from edge_mil.cli.doctor.findings import PROFILE_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "edge_mil" / "demo" / "bundle"


def test_tune_prints_a_table_keeps_the_fastest_and_doctor_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--state", str(tmp_path), "--threads", "1", "--rounds", "2"]
    assert main(["tune", str(DEMO), *words]) == 0
    printed = capsys.readouterr()
    assert "  kept" in printed.out
    assert "cpu fp32" in printed.out
    assert "1.00x" in printed.out
    assert main(["doctor", "--state", str(tmp_path)]) == 0
    assert "demo-painted-tissue" in capsys.readouterr().out


def test_tunes_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(DEMO), "--state", str(tmp_path), "--rounds", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    kept = [row for row in document["rows"] if row["kept"]]
    assert len(kept) == 1
    assert kept[0]["name"] == f"{document['kept']['backend']} {document['kept']['graph']}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tune", str(DEMO), "--rounds", "0"], "--rounds is 0"),
        (["tune", str(DEMO), "--threads", "-1"], "--threads is -1"),
        (["tune", "nowhere"], "There is no bundle at nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert sentence in capsys.readouterr().err


def test_doctor_tells_what_is_there_and_where_the_state_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--state", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ready"] is True
    said = " ".join(finding["what"] for finding in document["findings"])
    assert "onnxruntime" in said
    assert str(tmp_path) in said
    assert {f["state"] for f in document["findings"]} <= {"ok", "info", "warning"}


def test_doctor_without_the_devices_packages_says_how_to_get_them(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from importlib import metadata\n"
        "real = metadata.version\n"
        "def version(name):\n"
        "    if name == 'onnxruntime':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "metadata.version = version\n"
        "from edge_mil.cli import main\n"
        "sys.exit(main(['doctor', '--state', sys.argv[1]]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "NO  onnxruntime is not installed" in ended.stdout
    assert 'pip install "edge-mil[device]"' in ended.stdout


@pytest.mark.parametrize(("profile", "extra"), [("serve", "device"), ("export", "export")])
def test_doctor_asks_for_every_package_of_the_extra(profile: str, extra: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(rf"^{extra} = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert listed is not None
    wanted = set(re.findall(r'"([a-z0-9-]+)[>\[]', listed[1]))
    # The library of OpenSlide may come from the system, and tqdm only shows progress.
    wanted -= {"openslide-bin", "tqdm", "edge-mil"}
    assert wanted <= set(PROFILE_PACKAGES[profile][1])


def test_a_client_machine_needs_little(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--profile", "client"]) == 0
    printed = capsys.readouterr().out
    assert "grpcio" in printed
    assert "onnxruntime" not in printed
