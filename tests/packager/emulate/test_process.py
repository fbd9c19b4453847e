"""Only the very process that was started is ever signalled."""

import dataclasses
import subprocess
import sys

import pytest

from packager.emulate.process import end, identify, is_alive

MARK = "4243"


@pytest.fixture
def sleeper():
    # Popen returns a moment before the new command line can be read; what the program itself prints comes after that.
    script = f"import time; print(flush=True); time.sleep({MARK})"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_is_known_and_ended(sleeper):
    identity = identify(sleeper.pid)
    assert is_alive(identity, MARK)
    end(identity, MARK)
    assert not is_alive(identity, MARK)
    assert sleeper.wait(5) == -15
    end(identity, MARK)  # already gone: nothing to do


def test_another_process_with_the_same_number_is_left_alone(sleeper):
    earlier = dataclasses.replace(identify(sleeper.pid), started=1)
    assert not is_alive(earlier, MARK)
    end(earlier, MARK, kill=True)
    assert sleeper.poll() is None


def test_a_process_with_another_command_line_is_left_alone(sleeper):
    identity = identify(sleeper.pid)
    assert not is_alive(identity, "qemu")
    end(identity, "qemu", kill=True)
    assert sleeper.poll() is None


def test_what_is_gone_has_no_identity(sleeper):
    sleeper.kill()
    sleeper.wait()
    assert identify(sleeper.pid) is None


def test_what_ignores_the_polite_signal_is_killed():
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    with process:
        process.stdout.readline()
        end(identify(process.pid), "SIG_IGN", patience=0.2)
        assert process.wait(5) == -9
