"""Where a bundle goes, and what an interruption leaves: nothing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from packager.bundle.write import check_writable
from packager.cli.main import run
from tests.packager import models

USAGE, INTERRUPTED = 2, 130


@pytest.fixture
def model(place):
    return models.classifier(place / "m.onnx")


def build(*more):
    return ("build", "m.onnx", "-t", "linux-x86-64", "-r", "fp32", *more)


def test_output_is_a_folder(refused, model, place):
    (place / "out.edgepack").mkdir()
    assert refused(*build("-o", "out.edgepack"))[0] == USAGE


def test_output_below_a_file(refused, model):
    status, said = refused(*build("-o", "m.onnx/out.edgepack"))
    assert (status, "m.onnx is no folder" in said) == (USAGE, True)


def test_output_where_nothing_can_be_written(refused, model):
    status, said = refused(*build("-o", "/proc/out.edgepack"))
    assert (status, "choose another -o" in said) == (USAGE, True)


def obeying_permissions():
    """Permissions stop everybody but root, and root too when it gives up the right to override them."""
    if os.getuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is not installed, and the tests run as root")
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]


def test_output_folder_is_read_only(model, place):
    folder = place / "locked"
    folder.mkdir(mode=0o555)
    argv = [*obeying_permissions(), sys.executable, "-m", "packager", *build("-o", "locked/out.edgepack")]
    done = subprocess.run(argv, cwd=place, env=environment(place), capture_output=True, text=True, check=False)
    assert done.returncode == USAGE, done.stderr
    assert "nothing may be written in" in done.stderr
    assert "reading the model" not in done.stderr, "said before the work, not after it"
    assert list(folder.iterdir()) == []


def environment(place):
    return {**os.environ, "TMPDIR": str(place.parent / "temporary"), "PYTHONPATH": str(Path(__file__).parents[2])}


def test_new_folders_are_made(model, place):
    assert run(build("-o", "new/er/out.edgepack")) == 0
    assert [path.name for path in (place / "new" / "er").iterdir()] == ["out.edgepack"]
    check_writable(place / "new" / "er" / "out.edgepack")


def test_no_space_left(model, place, refused, monkeypatch):
    from packager.bundle import write

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.os, "fsync", full)
    status, said = refused(*build())
    assert (status, "No space left" in said) == (USAGE, True)


def test_bundle_that_was_there_survives_a_failed_build(model, place, refused, capfd):
    assert run(build()) == 0
    capfd.readouterr()
    before = (place / "m-linux-x86-64.edgepack").read_bytes()
    model.write_bytes(b"broken")
    refused(*build())
    assert (place / "m-linux-x86-64.edgepack").read_bytes() == before


@pytest.fixture
def interruptible():
    """A shell may have started the tests with SIGINT ignored, which children would inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("moment", "count"), [("reading the model", 8), ("calibrating on", 100), ("comparing with", 8)]
)
def test_interrupted_build(place, interruptible, number, moment, count):
    # Large enough that the interruption comes in the middle of the work.
    models.classifier(place / "m.onnx", side=128, width=32)
    models.samples(place / "cal.npz", image=models.images(count, side=128))
    argv = [sys.executable, "-m", "packager", "build", "m.onnx", "-t", "raspberry-pi-5", "-r", "int8", "-c", "cal.npz"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=place, env=environment(place), stdout=pipe, stderr=pipe, text=True) as process:
        said = ""
        for line in process.stderr:
            said += line
            if moment in line:
                process.send_signal(number)
                break
        out, rest = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, said + rest
    assert out == ""
    assert "Traceback" not in rest
    assert rest.endswith("edgepack: interrupted\n")
    assert sorted(path.name for path in place.iterdir()) == ["cal.npz", "m.onnx"]
    assert list((place.parent / "temporary").iterdir()) == []
