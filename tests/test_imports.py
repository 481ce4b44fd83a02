from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import edge_mil

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(edge_mil.__path__, "edge_mil.")
    if not module.name.endswith(".__main__")
)
TRAINING = ("torch", "torchvision", "timm", "onnx", "onnxscript", "edge_mil_export")
ACCELERATORS = ("tensorrt", "pycuda", "ray", "openvino")
ENGINE = (
    *("cv2", "onnxruntime", "openslide", "h5py", "sqlite3", "grpc_health", "grpc_reflection"),
    *("jinja2", "msgspec", "platformdirs", "rfc8785", "rich", "tifffile"),
)
POSIX = ("fcntl", "termios", "pwd", "grp", "resource", "tty", "pty", "syslog")


def run(program: str, absent: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter where some packages look as if not installed."""
    prefix = f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", prefix + program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_module_of_the_runtime_imports_without_training_libraries() -> None:
    imports = "\n".join(f"import {name}" for name in MODULES)
    ended = run(imports, (*TRAINING, *ACCELERATORS))
    assert ended.returncode == 0, ended.stderr


def test_the_light_client_imports_without_any_engine() -> None:
    ended = run("import edge_mil; print(edge_mil.Client.__name__)", (*TRAINING, *ENGINE))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "Client\n"


def test_the_light_client_imports_where_nothing_is_posix() -> None:
    ended = run("import edge_mil; edge_mil.Client", (*TRAINING, *ENGINE, *POSIX))
    assert ended.returncode == 0, ended.stderr


def test_the_light_client_imports_no_more_than_it_declares() -> None:
    # What the interpreter imports at its start are the environment's own hooks, as cuda-bindings'.
    program = (
        "before = set(sys.modules)\n"
        "import edge_mil\n"
        "edge_mil.Client\n"
        "ours = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(ours - set(sys.stdlib_module_names)))"
    )
    # grpc imports its companions by itself where they are installed.
    ended = run(program, ("grpc_health", "grpc_reflection", "grpc_status", "grpc_tools"))
    assert ended.returncode == 0, ended.stderr
    imported = {name for name in ended.stdout.split() if not name.startswith("_")}
    blocked = {name for name in imported if name.startswith("grpc_")}
    # google is protobuf's, typing_extensions grpcio's.
    declared = {"edge_mil", "grpc", "google", "numpy", "typing_extensions"}
    assert imported - blocked - declared - {"cython_runtime", "sitecustomize"} == set()


@pytest.mark.parametrize("name", [name for name in edge_mil.__all__ if name != "__version__"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(edge_mil, name).__module__.startswith("edge_mil.")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = edge_mil.Nonsense
