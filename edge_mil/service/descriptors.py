"""The limit of open files of this process, raised as far as its owner may."""

from __future__ import annotations

import contextlib

WANTED = 65_536
"""As `LimitNOFILE` of the unit: connections, session files and what SQLite keeps beside them."""


def raise_limit(wanted: int = WANTED) -> int:
    """Raise the soft limit of open files to the hard one, and return it; 0 where there is none.

    Linux gives 1 024 to a process that asks for nothing, and half a million to one that asks.
    """
    try:
        import resource
    except ImportError:  # Windows, where a service does not run
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
