"""The limit of open files is raised at the start, as far as the owner of the process may."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
from edge_mil.service.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))
print(raise_limit({wanted}))
"""


def limit_after(hard: int, wanted: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(hard=hard, wanted=wanted)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_the_soft_limit_becomes_what_is_wanted_or_the_hard_one() -> None:
    assert limit_after(hard=1024, wanted=512) == 512
    assert limit_after(hard=1024, wanted=65_536) == 1024
    assert limit_after(hard=256, wanted=65_536) == 256
