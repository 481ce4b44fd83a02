"""What the installer writes for a GPU, and the names of power modes; wheels are check-install's."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NODES = ("dev/nvmap", "dev/host1x-fence", "dev/nvgpu/igpu0/ctrl", "dev/dri/renderD128")
MODES = """# nvpmodel.conf of an Orin
< PARAM TYPE=FILE NAME=CPU_ONLINE >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""


def function(name: str, root: Path, *words: str) -> str:
    """Run one function of deploy/install on another root, and return what it prints."""
    script = (DEPLOY / "install").read_text()
    functions = script[: script.index('[ "$(id -u)" = 0 ]')]
    ended = subprocess.run(
        ["bash", "-c", f"{functions}\n{name} {' '.join(words)}"],
        env={**os.environ, "DESTDIR": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout


def test_the_unit_names_no_pattern_of_device_nodes() -> None:
    """Systemd takes none: such a line allows nothing."""
    unit = (DEPLOY / "edge-mil.service").read_text(encoding="utf-8")
    allowed = re.findall(r"^DeviceAllow=(\S+)", unit, re.MULTILINE)
    assert allowed
    assert all(name.startswith("char-") for name in allowed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_the_nodes_of_a_gpu_are_found_one_by_one_and_their_groups_too(tmp_path: Path) -> None:
    for node in NODES:
        (tmp_path / node).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.mknod(tmp_path / node, 0o20660, os.makedev(195, 0))
        except PermissionError:
            pytest.skip("device nodes cannot be made here")
        os.chown(tmp_path / node, 0, 44)
    (tmp_path / "dev/nvhost-not-a-node").write_text("")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\nvideo:x:44:\n")
    assert function("gpu_nodes", tmp_path).split() == [
        "/dev/nvmap",
        "/dev/nvgpu/igpu0/ctrl",
        "/dev/host1x-fence",
        "/dev/dri/renderD128",
    ]
    assert function("gpu_groups", tmp_path).split() == ["video"]


def test_a_machine_without_a_gpu_gets_no_driver_and_no_nodes(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    assert function("gpu_nodes", tmp_path) == ""
    assert function("add_driver", tmp_path, "/no/release") == ""


def test_the_gpu_is_tried_with_every_setting_of_the_unit_that_limits_it(tmp_path: Path) -> None:
    unit = tmp_path / "etc/systemd/system/edge-mil.service"
    unit.parent.mkdir(parents=True)
    unit.write_text((DEPLOY / "edge-mil.service").read_text())
    (tmp_path / "etc/systemd/system/edge-mil.service.d").mkdir()
    drop_in = tmp_path / "etc/systemd/system/edge-mil.service.d/devices.conf"
    drop_in.write_text("# nodes\n[Service]\nDeviceAllow=/dev/nvmap rw\n")
    program = tmp_path / "bin/systemd-run"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    script = (DEPLOY / "install").read_text()
    functions = script[: script.index('[ "$(id -u)" = 0 ]')]
    path = f"{program.parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", f"{functions}\ntry_gpu"],
        env={**os.environ, "DESTDIR": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    words = ended.stdout.splitlines()
    settings = {words[at + 1] for at, word in enumerate(words) if word == "-p"}
    assert {"DevicePolicy=closed", "DeviceAllow=/dev/nvmap rw", "User=edge-mil"} <= settings
    assert "SystemCallFilter=@system-service" in settings
    assert not [name for name in settings if name.startswith(("Type", "Exec", "Restart", "After"))]
    assert words[-3:-1] == [str(tmp_path / "opt/edge-mil/current/bin/python"), "-m"]
    assert words[-1] == "edge_mil.backends.tensorrt.drivers"


def power_mode(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "nvpmodel.conf").write_text(MODES)
    program = folder / "nvpmodel"
    program.write_text(
        '#!/bin/sh\n[ "$1" = -q ] && printf "NV Power Mode: 15W\\n0\\n" || echo "nvpmodel $*"\n'
    )
    program.chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "NVPMODEL_CONF": str(folder / "nvpmodel.conf"),
    }
    return subprocess.run(
        [str(DEPLOY / "power-mode"), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_power_mode_is_set_by_its_name(tmp_path: Path) -> None:
    assert power_mode(tmp_path).stdout == "* 15W\n  MAXN_SUPER\n"
    assert "nvpmodel -m 2" in power_mode(tmp_path, "MAXN_SUPER").stdout
    unknown = power_mode(tmp_path, "MAXN")
    assert unknown.returncode == 2
    assert "no mode MAXN; it has: 15W MAXN_SUPER" in unknown.stderr
