"""Fixtures: the road's, and how a fault is judged."""

from __future__ import annotations

import pytest

from tests.device.conftest import board, bundle, client, device_user, edgepack, interpreters, sshd, user_key
from tests.device.road import half_written

__all__ = ["board", "bundle", "client", "device_user", "edgepack", "interpreters", "sshd", "user_key"]


@pytest.fixture
def refused(edgepack):
    """Runs a command that must fail: `refused(code, device, "bench", ...)` gives what it said.

    Its stdout is empty, it says one thing and no traceback, and neither the device nor this side keeps a half-written file.
    """

    def run(code, device, *arguments):
        done = edgepack(*arguments, code=code)
        assert done.stdout == ""
        assert "this is a bug" not in done.stderr
        if device is not None and device.root.exists():
            assert half_written(device.root) == []
            assert not any((device.root / "results").glob("*"))
        assert [str(path) for path in edgepack.home.rglob("*.part")] == []
        return done.stderr

    return run
