"""A device that runs signed bundles only: nothing unsigned, or signed by a revoked key, runs there, by whatever road."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from agent.client import Model
from agent.contract import archive
from agent.contract.archive import BundleReader
from agent.contract.errors import IntegrityError
from packager.bundle.sign import load_trust, sign
from packager.device import vouching
from packager.device.device import Device
from packager.device.push import PushOptions
from tests.agent import signing
from tests.device.road import PACKAGES, digest_of, with_file

YEAR = 365.0 * 86400
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture
def key(tmp_path):
    return signing.key(tmp_path)


@pytest.fixture
def second(bundle, tmp_path):
    return with_file(bundle, tmp_path / "second.edgepack", bytes(1000))


@pytest.fixture
def signed(bundle, key, tmp_path):
    path = tmp_path / "signed.edgepack"
    shutil.copy(bundle, path)
    sign(path, key)
    return path


def strict(device, key, tmp_path, revoked=False):
    """The device runs only what the key signed; with `revoked` the key is, too."""
    (tmp_path / "allowed").write_text(signing.allowed(key))
    (tmp_path / "revoked").write_text(signing.public(key) if revoked else "")
    trust = load_trust(tmp_path / "allowed", tmp_path / "revoked" if revoked else None)
    vouching.set_trust(device, trust.__class__(**{**vars(trust), "signed_only": True}))


def run_there(kitchen, python, what, golden):
    """`agent.pyz run` on the device: exit code and stderr."""
    agent = kitchen.root / "agent" / "agent.pyz"
    output = kitchen.home / "y.npz"
    argv = [python, "-I", str(agent), "run", what, "--input", str(golden), "--output", str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr, output.exists()


@pytest.fixture
def golden(bundle, tmp_path):
    with BundleReader(bundle) as reader:
        reader.extract(tmp_path / "open")
        inputs = reader.manifest.golden.inputs
    np.savez(tmp_path / "x.npz", **{one.name: np.load(tmp_path / "open" / one.file)[0] for one in inputs})
    return tmp_path / "x.npz"


def test_unsigned_by_every_road(board, refused, edgepack, interpreters, signed, second, key, golden, tmp_path):
    kitchen = board("kitchen")
    with Device("kitchen") as device:
        strict(device, key, tmp_path)
        assert device.push(signed, PushOptions(slot="vision"))["activated"]["checks"][:2] == ["digest", "signature"]
    for words in (("push", second, "kitchen", "--slot", "vision"), ("bench", second, "kitchen")):
        assert "the bundle is not signed" in refused(7, kitchen, *words)
    digest = digest_of(second)
    said = refused(7, kitchen, "activate", "kitchen", "--slot", "vision", "--bundle", digest)
    assert "the bundle is not signed" in said
    python = interpreters(*PACKAGES)
    code, said, made = run_there(kitchen, python, digest, golden)
    assert (code, made) == (7, False)
    assert "the bundle is not signed" in said
    with pytest.raises(IntegrityError, match="not signed"):
        Model(digest, str(kitchen.root))
    assert run_there(kitchen, python, "vision", golden)[0] == 0
    told = edgepack.json("devices", "check", "kitchen", "--slot", "vision", code=7)["bundles"]
    errors = {row["bundle"]: row["error"] for row in told}
    assert errors[digest_of(signed)] is None
    assert "is not signed" in errors[digest]["what"], "staged, and named as what it is"


def test_unsigned_previous_is_not_rolled_back_to(board, refused, signed, second, key, tmp_path):
    kitchen = board("kitchen")
    with Device("kitchen") as device:
        for one in (second, signed):
            device.push(one, PushOptions(slot="vision"))
        strict(device, key, tmp_path)
    assert "the bundle is not signed" in refused(7, kitchen, "rollback", "kitchen", "--slot", "vision")
    assert archive.read_manifest_file((kitchen.root / "slots" / "vision" / "current").resolve())
    with Device("kitchen") as device:
        assert device.verify("vision")["bundles"][0]["bundle"] == digest_of(signed)


def test_a_key_revoked(board, refused, interpreters, signed, key, golden, tmp_path):
    kitchen = board("kitchen")
    with Device("kitchen") as device:
        strict(device, key, tmp_path)
        device.push(signed, PushOptions(slot="vision"))
        strict(device, key, tmp_path, revoked=True)
    said = refused(7, kitchen, "activate", "kitchen", "--slot", "vision", "--bundle", digest_of(signed))
    assert "has been revoked" in said
    code, said, made = run_there(kitchen, interpreters(*PACKAGES), "vision", golden)
    assert (code, made) == (7, False)
    assert "has been revoked" in said
    with pytest.raises(IntegrityError, match="revoked"):
        Model("vision", str(kitchen.root))


def test_a_clock_in_1970(board, interpreters, signed, second, key, tmp_path):
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed: apt-get install faketime")
    python = interpreters(*reversed(PACKAGES))  # one of its own
    # Python's sleep is to an absolute time, which libfaketime shifts before the beginning of time.
    place = next(Path(python).parents[1].glob("lib/python3.*/site-packages"))
    place.joinpath("sleep.pth").write_text(
        "import time; time.sleep = lambda s: __import__('select').select([], [], [], s)\n"
    )
    text = f'#!/bin/sh\nexport DONT_FAKE_MONOTONIC=1\nexec {faketime} -f -56y {python} "$@"\n'
    board("kitchen", python=interpreters.script("python-1970", text))
    sign(second, key)
    with Device("kitchen") as device:
        strict(device, key, tmp_path)
        for one in (signed, second):
            done = device.push(one, PushOptions(slot="vision"))["activated"]
            assert done["slot"]["changed_unix"] < YEAR
        assert device.rollback("vision")["slot"]["current"] == digest_of(signed)
        assert device.prune(0)["removed"] == [digest_of(second)]
