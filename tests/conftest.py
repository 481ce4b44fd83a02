"""What holds for every test: how hypothesis runs."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A deadline, or a health check of the time that drawing takes, fails on a busy machine.
settings.register_profile(
    "default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# In CI the examples are the same at every run; locally each run tries new ones.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
