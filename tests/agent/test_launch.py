"""The folder of a measuring process: cleared by the agent, and after a killed agent by the next one."""

import os
import subprocess
import sys
import tempfile

import pytest

from agent import launch


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_agent_killed_leaves_a_folder_that_the_next_one_clears(temporary):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = temporary / f"edgepack-run-{launch._pid_space()}-{dead.pid}-abc"
    (stale / "inner").mkdir(parents=True)
    (stale / "inner" / "profile.json").write_text("{}")
    alive = temporary / f"edgepack-run-{launch._pid_space()}-{os.getpid()}-abc"
    alive.mkdir()
    other = temporary / f"edgepack-run-1-{dead.pid}-abc"  # another container's
    other.mkdir()
    launch._clear_stale()
    assert sorted(path.name for path in temporary.iterdir()) == sorted([alive.name, other.name])


def test_link_in_the_place_of_a_folder_is_not_followed(temporary, tmp_path_factory):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = tmp_path_factory.mktemp("kept")
    (kept / "file").write_text("mine")
    (temporary / f"edgepack-run-{launch._pid_space()}-{dead.pid}-x").symlink_to(kept)
    launch._clear_stale()
    assert (kept / "file").read_text() == "mine"


def test_frames_of_a_c_library_do_not_hide_what_it_said():
    talk = "RuntimeError: no kernel\n" + "".join(
        f"frame #{n}: _start + 0x{n:x}00 (0x5d18f0 in /usr/bin/python3)\n" for n in range(90)
    )
    error = launch.death(1, talk.encode())
    assert error.where == "RuntimeError: no kernel"
