"""Commands: the same promises over SSH and on this machine."""

import errno
import io
import os
import re
import signal
import threading
import time

import pytest

from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from packager.device import transport as limits


def test_status_and_both_streams(transport):
    done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.status, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_every_word_arrives_as_it_is(transport):
    words = ["a b", "$HOME", "`id`", "it's", '"', "*", "", "\n", "~", "-n", ";", "ü", "\\", "!x"]
    done = transport.run(["printf", "%s|", *words])
    assert done.stdout.decode() == "".join(f"{word}|" for word in words)


def test_nul_and_empty_commands_are_refused(transport):
    with pytest.raises(UsageError):
        transport.run([])
    with pytest.raises(UsageError):
        transport.run(["echo", "a\0b"])


def test_program_under_home(transport):
    home = transport.run(["sh", "-c", "mkdir -p ~/'my bin' && ln -sf /bin/echo ~/'my bin'/say && echo ~"])
    assert transport.run(["~/my bin/say", "~/x"]).stdout == b"~/x\n"
    transport.run(["rm", "-r", f"{home.stdout.decode().strip()}/my bin"])


def test_stdin_of_many_windows_comes_back(transport):
    data = os.urandom(9 << 20)
    done = transport.run(["cat"], stdin=data)
    assert done.stdout == data
    assert transport.run(["wc", "-c"], stdin=io.BytesIO(data)).stdout.strip() == str(len(data)).encode()


def test_stdin_that_nobody_reads_is_no_fault(transport):
    done = transport.run(["sh", "-c", "exec <&-; echo gone; exit 4"], stdin=bytes(8 << 20))
    assert (done.status, done.stdout) == (4, b"gone\n")


def test_stdin_that_cannot_be_read(transport):
    class Broken:
        def read(self, _size, /):
            raise OSError(errno.EIO, "the disk is gone")

    with pytest.raises(UsageError, match="the disk is gone"):
        transport.run(["cat"], stdin=Broken())


def test_large_output_on_both_streams(transport):
    done = transport.run(["sh", "-c", "head -c 6000000 /dev/zero; head -c 300000 /dev/zero >&2"])
    assert (len(done.stdout), len(done.stderr)) == (6000000, 300000)


def test_endless_output_is_refused(transport, monkeypatch):
    with pytest.raises(DeviceError) as caught:
        transport.run(["cat", "/dev/zero"], deadline=60)
    assert caught.value.code == "too-much-output"


def test_endless_line_is_refused(transport, monkeypatch):
    with pytest.raises(DeviceError) as caught:
        transport.run(["cat", "/dev/zero"], on_line=lambda _: None, deadline=60)
    assert caught.value.code == "too-much-output"


def test_chatty_stderr_keeps_its_end(transport):
    done = transport.run(["sh", "-c", "yes 0123456789 | head -c 5000000 >&2; echo the end >&2"])
    assert done.stderr.endswith(b"the end\n")
    assert re.match(rb"\[\d+ bytes left out\]\n", done.stderr)
    assert len(done.stderr) <= limits.MAX_STDERR + 100


def test_killed_command_has_the_shells_status(transport):
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        assert transport.run(["sh", "-c", f"kill -{int(number)} $$"]).status == 128 + number


def test_missing_program_is_127(transport):
    done = transport.run(["no-such-program-here"])
    assert done.status == 127
    assert done.stderr


def test_lines_come_one_by_one(transport):
    lines = []
    done = transport.run(["sh", "-c", "printf 'a\\n\\nb'; printf 'c\\nlast'"], on_line=lines.append)
    assert lines == [b"a", b"", b"bc", b"last"]
    assert done.stdout == b""


def test_line_arrives_before_the_command_ends(transport):
    # The command ends only when it is told what it said, so an answer proves that its line came in time.
    seen = threading.Event()

    class Answer:
        def read(self, _size, /):
            if not seen.wait(30):
                raise OSError(errno.ETIMEDOUT, "no line came")
            data, self.read = b"yes\n", lambda _: b""
            return data

    if transport.name == "local":
        pytest.skip("one thread moves all streams of a local command: its input must not wait for its output")
    done = transport.run(["sh", "-c", "echo ready; read x; exit 7"], stdin=Answer(), on_line=lambda _: seen.set())
    assert done.status == 7


def test_error_in_on_line_ends_the_command(transport):
    def refuse(line):
        raise DeviceError("not a line of ours", code="protocol")

    with pytest.raises(DeviceError, match="not a line of ours"):
        transport.run(["sh", "-c", "while :; do echo x; done"], on_line=refuse, deadline=60)
    assert transport.run(["echo", "again"]).stdout == b"again\n"


def test_deadline_and_the_command_is_gone(transport, tmp_path):
    word = f"4{time.monotonic_ns() % 10**9}"
    with pytest.raises(TransientDeviceError) as caught:
        transport.run(["sh", "-c", f"sleep {word} & while :; do echo busy; sleep 0.05; done"], deadline=0.5)
    assert caught.value.code == "deadline"
    for _ in range(100):
        if transport.run(["pgrep", "-f", f"^sleep {word}"]).status == 1:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the command's child lives on")


def test_silence_is_measured_apart_from_the_whole(transport):
    done = transport.run(["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"], idle=1.5)
    assert done.status == 0
    with pytest.raises(TransientDeviceError, match="said nothing for"):
        transport.run(["sh", "-c", "echo once; sleep 30"], idle=0.5)


def test_interrupt_sends_its_bytes_and_goes_on(transport):
    lines = []

    def on_line(line):
        lines.append(line)
        if line == b"ready":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        transport.run(
            ["sh", "-c", "read job; echo ready; read word; echo got $word"],
            stdin=b"job\n",
            on_line=on_line,
            on_interrupt=b"cancel\n",
            deadline=60,
        )
    assert lines == [b"ready", b"got cancel"]
    assert transport.run(["echo", "again"]).stdout == b"again\n"


def test_interrupt_without_bytes_ends_the_command(transport):
    word = f"5{time.monotonic_ns() % 10**9}"
    with pytest.raises(KeyboardInterrupt):
        transport.run(
            ["sh", "-c", f"echo up; exec sleep {word}"],
            on_line=lambda _: signal.raise_signal(signal.SIGINT),
            deadline=60,
        )
    for _ in range(100):
        if transport.run(["pgrep", "-f", f"^sleep {word}"]).status == 1:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the command lives on")


def test_many_commands_at_once_over_one_transport(transport):
    answers = {}

    def ask(number):
        answers[number] = transport.run(["sh", "-c", f"sleep 0.05; echo {number}"]).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n".encode() for number in range(8)}
