"""Try the GPU as a program would: `python -m edge_mil.backends.tensorrt.drivers`.

`deploy/install --check` runs it inside of the service's sandbox. Exit code 0: a context was made
and given back; 1: not, and one sentence says why.
"""

from __future__ import annotations

import sys

from edge_mil.backends.tensorrt.device import find_device
from edge_mil.backends.tensorrt.drivers.driver import check_driver
from edge_mil.errors import EdgeMilError


def main() -> int:
    """Find the GPU and make a context of it."""
    device = find_device()
    if device is None:
        sys.stderr.write("The driver shows no NVIDIA GPU to this user (cuInit).\n")
        return 1
    try:
        check_driver()
    except EdgeMilError as error:
        sys.stderr.write(f"{device.name}: {error}\n")
        return 1
    sys.stdout.write(f"{device.name}, compute capability {device.compute_capability}, answers.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
