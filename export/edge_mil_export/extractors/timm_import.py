"""Import timm beside a torchvision whose compiled operators are missing.

PyPI's torchvision beside a CPU-only torch fails to import ("operator torchvision::nms does not
exist"), since it registers shapes for operators that its own library did not bring. Neither timm's
models nor the exporter use any of those operators (`docs/design/quantization-and-runtime.md`,
"Exporting the extractor").
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from edge_mil.errors import DependencyError

NAMESPACE = "torchvision::"


def import_timm() -> ModuleType:
    """Return timm.

    Raises:
        DependencyError: torch or timm is not installed.
    """
    import_torchvision()
    try:
        with warnings.catch_warnings():
            # timm warns of its own old paths; nothing that a user of the exporter can change.
            warnings.simplefilter("ignore")
            import timm
    except ImportError as error:
        raise DependencyError(
            f'timm cannot be imported ({error}); run: pip install "edge-mil[export]"'
        ) from error
    module: ModuleType = timm
    return module


def import_torchvision() -> None:
    """Import torchvision, if there is one, without the shapes of operators that it lacks."""
    if "torchvision" in sys.modules:
        return
    try:
        import torch
        import torch.library
    except ImportError as error:
        raise DependencyError(
            'torch is not installed; run: pip install "edge-mil[export]"'
        ) from error
    real: Callable[..., Any] = torch.library.register_fake

    def register(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith(NAMESPACE):
            return lambda function: function
        return real(op, *args, **kwargs)

    setattr(torch.library, "register_fake", register)  # noqa: B010 - mypy refuses the plain form
    try:
        with warnings.catch_warnings():
            # torchvision warns that its image library is missing; no image is read with it.
            warnings.simplefilter("ignore")
            import torchvision  # noqa: F401 - the import itself is what is wanted
    except (ImportError, RuntimeError, AttributeError):
        # timm's models work without torchvision; where one does not, timm's error names it.
        sys.modules.pop("torchvision", None)
    finally:
        setattr(torch.library, "register_fake", real)  # noqa: B010
