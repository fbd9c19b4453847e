"""Interpreters that are not there, too old, or lack something; and programs in their place that say what they should not."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest

from agent.contract.errors import TransientDeviceError
from packager.device import session
from packager.device.device import Device
from tests.device.road import PACKAGES, digest_of, remade

# Says what a Python says until the agent is started, then what $3 tells it to say.
IMPOSTOR = """#!/bin/sh
case "$2" in
-c) exec {python} "$@" ;;
*) read job; {says} ;;
esac
"""
RESULT = """printf '{"type": "result", "result": %s}\\n' """


@pytest.fixture
def impostor(interpreters, board):
    """A device whose agent says what a shell command prints: `impostor("echo garbage")`."""

    def start(says, *, always=False):
        text = f"#!/bin/sh\n{says}\n" if always else IMPOSTOR.format(python=interpreters(*PACKAGES), says=says)
        script = interpreters.script(f"impostor-{time.monotonic_ns()}", text)
        return board("kitchen", python=script)

    return start


def old_python(version):
    """A real interpreter of that version on this machine, or a skip."""
    known = [*Path.home().glob(f".pyenv/versions/{version}.*"), *Path("/opt").glob(f"python{version}*")]
    for prefix in known:
        if (prefix / "bin" / "python3").exists():
            return prefix
    found = shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"there is no Python {version} here (pyenv install {version})")
    return Path(found).resolve().parents[1]


@pytest.fixture(params=["3.6", "3.7"])
def too_old(request, interpreters, monkeypatch):
    monkeypatch.undo()  # the interpreters are the real user's
    return request.param, interpreters.copy(old_python(request.param))


def test_no_python(refused, board, bundle):
    device = board("kitchen", python="/nowhere/python3")
    for words in (("bench", bundle), ("push", bundle), ("devices", "doctor")):
        said = refused(4, device, *words, "kitchen")
        assert "there is no Python at '/nowhere/python3' on kitchen" in said
        assert "edgepack devices add NAME HOST --python PATH" in said
    assert not device.root.exists()


def test_no_python_on_path(refused, board, bundle):
    device = board("kitchen", python="python3.99")
    assert "there is no Python at 'python3.99'" in refused(4, device, "bench", bundle, "kitchen")


def test_python_too_old(too_old, refused, board, bundle):
    version, path = too_old
    device = board("kitchen", python=path)
    for words in (("bench", bundle), ("devices", "doctor")):
        said = refused(4, device, *words, "kitchen")
        assert f"the device's Python is {version}" in said
        assert "expected: Python 3.8 or newer" in said
        assert f"{version}." in said  # where it is
    assert not device.root.exists()


def test_no_numpy(refused, board, bundle, interpreters, edgepack):
    path = interpreters()
    device = board("kitchen", python=path)
    said = refused(4, device, "bench", bundle, "kitchen", "--runs", "5")
    assert "numpy is not installed" in said
    assert path in said
    assert "pip install numpy onnxruntime" in said
    doctor = edgepack.json("devices", "doctor", "kitchen", code=4)
    (error,) = [one for one in doctor["findings"] if one["level"] == "error"]
    assert error["code"] == "no-numpy"
    assert "pip install numpy onnxruntime" in error["advice"]


def test_no_runtime(refused, board, bundle, interpreters, edgepack):
    device = board("kitchen", python=interpreters("numpy"))
    pushed = edgepack("push", bundle, "kitchen")
    assert "onnxruntime is not installed" in pushed.stdout
    said = refused(4, device, "bench", bundle, "kitchen", "--runs", "5")
    assert "onnxruntime is not installed" in said
    assert "pip install onnxruntime" in said
    doctor = edgepack.json("devices", "doctor", "kitchen", code=4)
    assert [one["code"] for one in doctor["findings"] if one["level"] == "error"] == ["no-runtime"]


def test_doctor_names_the_interpreter_that_has_the_runtime(board, interpreters, edgepack):
    better = interpreters(*PACKAGES)
    device = board("kitchen", python=interpreters())
    place = device.home / "venv"
    place.symlink_to(Path(better).parents[1])
    doctor = edgepack.json("devices", "doctor", "kitchen", code=4)
    assert any(one["path"].startswith(str(place)) and "onnxruntime" in one["has"] for one in doctor["interpreters"])
    (error,) = [one for one in doctor["findings"] if one["level"] == "error"]
    assert f"--python {place}/bin/python3" in error["advice"]


@pytest.mark.parametrize(("low", "high"), [("99.1", ""), ("1.0", "1.1")])
def test_wrong_runtime_version(refused, board, bundle, tmp_path, low, high):
    def need(manifest):
        runtime = dataclasses.replace(manifest.runtime, min_version=low, below_version=high)
        return dataclasses.replace(manifest, runtime=runtime)

    device = board("kitchen")
    said = refused(4, device, "bench", remade(bundle, tmp_path / "b.edgepack", need), "kitchen", "--runs", "5")
    assert "is on the device" in said
    assert f">= {low}" in said
    assert not high or f"< {high}" in said
    assert "build for a profile that names onnxruntime" in said


def test_bundle_of_an_unknown_runtime(refused, board, bundle, tmp_path):
    def need(manifest):
        return dataclasses.replace(manifest, runtime=dataclasses.replace(manifest.runtime, name="abacus"))

    device = board("kitchen")
    said = refused(4, device, "bench", remade(bundle, tmp_path / "b.edgepack", need), "kitchen", "--runs", "5")
    assert "this agent cannot run 'abacus' bundles" in said


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("echo garbage", "ended with status 0 and no answer"),
        ("exit 3", "ended with status 3 and no answer"),
        ("echo '{broken'", "answered with broken JSON"),
        ('echo \'{"python": "three"}\'', "answered with something else than asked"),
        ("yes garbage", "wrote more than"),
        ("cat /dev/zero", "wrote a line above"),
    ],
)
def test_program_in_the_place_of_python(impostor, refused, bundle, says, expected):
    device = impostor(says, always=True)
    assert expected in refused(4, device, "bench", bundle, "kitchen")


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("echo garbage", "what is not the agent's protocol: b'garbage'"),
        ("yes garbage", "what is not the agent's protocol: b'garbage'"),
        ("cat /dev/zero", "wrote a line above"),
        ("exit 0", "the agent ended without an answer (status 0)"),
        ("kill -SEGV $$", "the agent was killed by SIGSEGV before it answered"),
        ("echo 'out of luck' >&2; exit 7", "out of luck"),
        ("echo '[]'", "an unknown line"),
        ('echo \'{"type": "dance"}\'', "an unknown line"),
        ("printf '[%.0s' $(seq 200000)", "what is not the agent's protocol"),
        (RESULT + "7", "answered with something else than asked"),
        (RESULT + '\'{"bundles": 7, "root": "/"}\'', "answered with something else than asked"),
        ('echo \'{"type": "error", "error": 7}\'', "an error that this version cannot read"),
        ('echo \'{"type": "error", "error": {"kind": "SystemExit"}}\'', "an error that this version cannot read"),
    ],
)
def test_program_in_the_place_of_the_agent(impostor, refused, bundle, says, expected):
    device = impostor(says)
    assert expected in refused(4, device, "bench", bundle, "kitchen")


def test_report_that_is_none(impostor, refused, bundle):
    hello = json.dumps({"bundles": [digest_of(bundle)], "root": "/"})
    device = impostor(f"""case "$4" in hello) {RESULT}'{hello}' ;; *) {RESULT}'{{"job": 7}}' ;; esac""")
    assert "answered with something else than asked: " in refused(4, device, "bench", bundle, "kitchen")


def test_device_cannot_paint_on_the_terminal(impostor, refused, bundle):
    escape = '{"type": "error", "error": {"kind": "DeviceError", "what": "\\u001b[2Jgone", "fix": "\\u009b31mred"}}'
    device = impostor(f"""printf '%s\\n' '{{"type": "progress", "message": "\\u001b]0;title"}}' '{escape}'""")
    said = refused(4, device, "bench", bundle, "kitchen")
    assert "gone" in said
    assert not {"\x1b", "\x9b"} & set(said)


def test_endless_heartbeats_end_at_the_deadline(impostor, monkeypatch):
    impostor("""while :; do echo '{"type": "heartbeat"}'; sleep 0.1; done""")
    monkeypatch.setattr(session, "DEADLINE", 2.0)
    with Device("kitchen") as device, pytest.raises(TransientDeviceError) as caught:
        device.hello()
    assert caught.value.code == "deadline"
