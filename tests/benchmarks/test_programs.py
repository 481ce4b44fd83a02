"""Every measurement program is in the README and starts from the repository's root."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in HERE.rglob("*.py")
    if path != Path(__file__) and "__main__" in path.read_text(encoding="utf-8")
)


def test_the_readme_has_a_line_for_every_program_and_no_other() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `python (\S+\.py)", text, flags=re.MULTILINE)) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_its_help(program: str) -> None:
    done = subprocess.run(
        [sys.executable, program, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: {Path(program).name}" in done.stdout
