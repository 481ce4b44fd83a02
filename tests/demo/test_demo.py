"""`edge-mil demo` from end to end, as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shared_data import shared
from terminal_screen import ESCAPE, in_a_terminal

from edge_mil.bundle import open_bundle
from edge_mil.cameras import SlideFile
from edge_mil.demo.run import BUNDLE
from edge_mil.demo.service_process import ServiceProcess
from edge_mil.errors import ServiceUnavailableError
from edge_mil.pipeline import load_model
from edge_mil.pipeline.whole_slide.score import SlideReading, score_slide

LIMIT_S = 120
COMMAND = [sys.executable, "-m", "edge_mil.cli", "demo", "--fps", "1000"]


def _demo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=LIMIT_S)


def _processes(words: str) -> list[str]:
    """Return the command lines of running processes that hold `words`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if words in line:
                found.append(line)
    return found


def _offline(path: Path) -> SlideReading:
    slide = SlideFile(path)
    try:
        return score_slide(load_model(open_bundle(BUNDLE)), slide)
    finally:
        slide.close()


def test_the_demo_scores_its_positive_slide_and_ends_with_the_reports_path(tmp_path: Path) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    ended = _demo("--out", str(out), "--state", str(state))
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    report = Path(lines[-1])
    assert report == (out / "report.html").resolve()
    page = report.read_text()
    assert "Research use only" in page
    assert page.count("<figure>") == 8
    for row in ("slide", "pixel size", "instances", "extractor", "aggregator"):
        assert f"<tr><th>{row}</th>" in page
    assert "3072 x 2304 px, 1.54 x 1.15 mm" in page
    assert "knows painted tissue only" not in page
    said = re.match(r"positive (\d\.\d+) from (\d+) instances, coverage (\d+)%", lines[-2])
    assert said is not None
    assert float(said[1]) > 0.5
    assert int(said[2]) > 100
    assert said[3] == "100"
    assert not _processes(str(state)), "the service was left behind"
    whole = _offline(out / "painted.tiff")
    assert whole.score is not None
    assert whole.instances == int(said[2])
    # What is printed has three digits.
    assert whole.score.probabilities[-1] == pytest.approx(float(said[1]), abs=6e-4)


def test_in_a_terminal_the_demo_stays_within_80_columns(tmp_path: Path) -> None:
    program = "import sys; from edge_mil.cli import main; sys.exit(main(sys.argv[1:]))"
    shown = in_a_terminal(program, "demo", "--fps", "1000", "--out", str(tmp_path / "out"))
    *lines, report = ESCAPE.sub("", shown).replace("\r", "").splitlines()
    assert Path(report) == (tmp_path / "out" / "report.html").resolve()
    assert max(map(len, lines)) <= 80
    assert any("▀" in line for line in lines)


def test_a_negative_slide_stays_negative(tmp_path: Path) -> None:
    ended = _demo("--negative", "--seed", "11", "--out", str(tmp_path / "out"))
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.splitlines()[-2].split()[1]) < 0.5


@pytest.mark.shared
def test_a_real_slide_plays_and_its_report_says_what_the_model_knows(tmp_path: Path) -> None:
    slide = shared("data/slides/cmu1_small_region.svs")
    ended = _demo(str(slide), "--out", str(tmp_path / "out"))
    assert ended.returncode == 0, ended.stderr
    assert "knows painted tissue only" in ended.stdout
    assert "knows painted tissue only" in Path(ended.stdout.splitlines()[-1]).read_text()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_service_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    state = tmp_path / "state"
    process = subprocess.Popen(
        [*COMMAND[:-1], "4", "--out", str(tmp_path / "out"), "--state", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with SIGINT ignored, and the demo would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert any(line.startswith("field ") for line in process.stdout)
    assert _processes(str(state))
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    until = time.monotonic() + 10
    while _processes(str(state)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _processes(str(state))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["missing.svs"], "There is no slide missing.svs"),
        (["--mpp", "0.5"], "--mpp is the pixel size of a slide file"),
        (["--seed", "-1"], "give 0 or more"),
        (["--fps", "0"], "--fps must be above 0"),
        (["slide.svs", "--negative"], "are for the painted slide"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    ended = _demo("--out", str(tmp_path / "out"), *words)
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_service_that_cannot_start_says_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(ServiceUnavailableError, match=r"ended by itself: .*no bundle"),
        ServiceProcess(tmp_path / "no bundle", tmp_path),
    ):
        pass
