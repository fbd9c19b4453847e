"""Clocks are raised for a block and given back, whatever happens in it. A script stands in for jetson_clocks."""

import os

import pytest

from agent import clocks
from agent.contract.errors import DeviceError

SCRIPT = """#!/bin/sh
# Stands in for jetson_clocks: the "clock" is a file.
case "$1" in
--store) cp "{clock}" "$2" ;;
--restore) cp "$2" "{clock}" ;;
"") [ -e "{fail}" ] && {{ echo "cannot set" >&2; exit 3; }}; echo high > "{clock}" ;;
esac
"""


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """The file that stands for the board's clock; `clock.with_suffix(".fail")` makes raising it fail."""
    if os.geteuid():
        pytest.skip("as another user the tool is called through sudo")
    place = tmp_path / "board.clock"
    place.write_text("low\n")
    tool = tmp_path / "bin" / clocks.TOOL
    tool.parent.mkdir()
    tool.write_text(SCRIPT.format(clock=place, fail=place.with_suffix(".fail")))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return place


def test_the_clocks_are_high_inside_and_as_before_afterwards(clock, tmp_path):
    with clocks.locked(str(tmp_path)):
        assert clock.read_text() == "high\n"
        assert clocks.left_locked(str(tmp_path))
    assert clock.read_text() == "low\n"
    assert not clocks.left_locked(str(tmp_path))


def test_a_failure_inside_gives_the_clocks_back(clock, tmp_path):
    with pytest.raises(RuntimeError, match="inside"), clocks.locked(str(tmp_path)):
        raise RuntimeError("inside")
    assert clock.read_text() == "low\n"


def test_after_a_killed_run_the_settings_from_before_it_come_back(clock, tmp_path):
    (tmp_path / clocks.STORED).write_text("low\n")
    clock.write_text("high\n")
    with clocks.locked(str(tmp_path)):
        pass
    assert clock.read_text() == "low\n"


def test_a_tool_that_fails_is_told_with_its_words_and_nothing_stays_changed(clock, tmp_path):
    clock.with_suffix(".fail").touch()
    with pytest.raises(DeviceError) as caught, clocks.locked(str(tmp_path)):
        pass
    assert "status 3" in str(caught.value)
    assert caught.value.where == "cannot set"
    assert clock.read_text() == "low\n"


def test_not_asked_for_nothing_is_touched(clock, tmp_path):
    with clocks.locked(str(tmp_path), wanted=False):
        assert clock.read_text() == "low\n"


def test_a_board_without_the_tool_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(clocks, "_PLACES", str(tmp_path))
    with pytest.raises(DeviceError, match="jetson_clocks is not on the device"), clocks.locked(str(tmp_path)):
        pass
