"""Settings of all tests."""

import os
import signal

from hypothesis import HealthCheck, settings

# No test is timed: a busy machine must not fail one. In CI the same examples are drawn every time.
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("house")

# A job in the background of a shell starts with SIGINT ignored; the tests that interrupt need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
