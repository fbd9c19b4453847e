"""A device without the runtime: offered to a person at a terminal, never to a script that did not say --provision."""

import json
import os
import pty
import subprocess
import threading

import pytest


@pytest.fixture
def at_terminal(edgepack):
    """Runs a command whose stdin and stderr are a terminal, with an answer typed in: status, stdout, what was shown."""

    def run(*arguments, answer):
        ours, theirs = pty.openpty()
        shown = []

        def read():
            while True:
                try:
                    data = os.read(ours, 4096)
                except OSError:  # EIO: the other end is closed
                    return
                shown.append(data)
                if b"[y/N]" in b"".join(shown) and not answered.is_set():
                    answered.set()
                    os.write(ours, answer.encode() + b"\n")

        answered = threading.Event()
        reader = threading.Thread(target=read, daemon=True)
        process = subprocess.Popen(
            edgepack._argv(arguments),
            env=edgepack.environment,
            cwd=edgepack.home,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        reader.start()
        output = process.stdout.read()
        process.stdout.close()
        status = process.wait(240)
        reader.join(20)
        os.close(ours)
        return status, output.decode(), b"".join(shown).decode()

    return run


def test_runtime_missing_in_a_script(board, edgepack, bundle, interpreters):
    board("bare", interpreters("numpy"))
    told = edgepack("bench", bundle, "bare", code=4).stderr
    assert "edgepack devices provision bare" in told
    assert "--provision" in told
    assert "[y/N]" not in told


def test_runtime_missing_at_a_terminal(board, edgepack, bundle, interpreters, at_terminal):
    device = board("bare", interpreters("numpy"))
    status, _, shown = at_terminal("bench", bundle, "bare", answer="n")
    assert status == 4
    assert "onnxruntime is not installed" in shown
    assert not (device.root / "site").exists()
    status, output, shown = at_terminal("bench", bundle, "bare", "--runs", "3", "--rounds", "1", "--json", answer="y")
    assert status == 0, shown
    (report,) = json.loads(output)["reports"]
    assert report["parity"]["verdict"] == "pass"
    assert (device.root / "site" / "current").exists()


def test_runtime_missing_on_one_of_two(board, edgepack, bundle, interpreters):
    board("whole")
    board("bare", interpreters("numpy"))
    told = edgepack.json("bench", bundle, "whole", "bare", "--provision", "--runs", "3", "--rounds", "1")
    assert sorted(report["device"] for report in told["reports"]) == ["bare", "whole"]
    assert told["errors"] == []
