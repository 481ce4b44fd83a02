"""`python -m edge_mil.cli`, for where the scripts of the environment are not on the path."""

from __future__ import annotations

import sys

from edge_mil.cli import main

if __name__ == "__main__":
    sys.exit(main())
