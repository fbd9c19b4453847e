"""Settings of all tests."""

import os

from hypothesis import HealthCheck, settings

# No test is timed: a busy machine must not fail one. In CI the same examples are drawn every time.
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("house")
