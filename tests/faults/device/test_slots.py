"""Slots over a real SSH server: activation, its refusals, and what they leave running."""

import subprocess

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from tests.device.road import PACKAGES, digest_of, with_file


@pytest.fixture
def kitchen(board, interpreters):
    """A device that can run the bundle."""
    return board("kitchen", python=interpreters(*PACKAGES))


@pytest.fixture
def second(bundle, tmp_path):
    """The same model under another digest."""
    return with_file(bundle, tmp_path / "second.edgepack", bytes(1000))


def test_staged_then_activated_then_rolled_back(kitchen, edgepack, bundle, second):
    first = edgepack.json("push", bundle, "kitchen", "--slot", "vision")["pushed"][0]
    assert first["activated"]["slot"]["current"] == digest_of(bundle)
    staged = edgepack.json("push", second, "kitchen", "--slot", "vision", "--no-activate")["pushed"][0]
    assert staged["activated"] is None
    assert staged["bytes_sent"] > 0
    done = edgepack.json("activate", "kitchen", "--slot", "vision")
    assert (done["slot"]["current"], done["replaced"]) == (digest_of(second), digest_of(bundle))
    assert edgepack.json("rollback", "kitchen", "--slot", "vision")["slot"]["current"] == digest_of(bundle)


def test_activate_of_what_is_not_there(kitchen, refused, edgepack, bundle):
    edgepack("push", bundle, "kitchen")
    said = refused(4, kitchen, "activate", "kitchen", "--slot", "vision")
    assert "vision" in said


def test_rollback_with_no_previous(kitchen, refused, edgepack, bundle):
    edgepack("push", bundle, "kitchen", "--slot", "vision")
    said = refused(4, kitchen, "rollback", "kitchen", "--slot", "vision")
    assert "vision" in said


def test_quota_is_shown_set_and_reached(kitchen, refused, edgepack, bundle, tmp_path):
    edgepack("push", bundle, "kitchen")
    assert edgepack("devices", "quota", "kitchen").stdout.startswith("kitchen: ")
    used = edgepack.json("devices", "quota", "kitchen")["used_bytes"]
    limit = used // 1_000_000 + 2
    assert edgepack.json("devices", "quota", "kitchen", str(limit))["quota_bytes"] == limit * 1_000_000
    large = with_file(bundle, tmp_path / "large.edgepack", bytes(8 << 20))
    assert "quota" in refused(4, kitchen, "push", large, "kitchen")


def test_one_inference_of_a_slot_on_the_device(kitchen, edgepack, bundle, interpreters, tmp_path):
    edgepack("push", bundle, "kitchen", "--slot", "vision")
    with BundleReader(bundle) as reader:
        reader.extract(tmp_path / "open")
        golden = reader.manifest.golden
    arrays = {one.name: np.load(tmp_path / "open" / one.file)[0] for one in golden.inputs}
    np.savez(tmp_path / "x.npz", **arrays)
    agent = kitchen.root / "agent" / "agent.pyz"
    argv = [interpreters(*PACKAGES), "-I", str(agent), "run", "vision"]
    argv += ["--input", str(tmp_path / "x.npz"), "--output", str(tmp_path / "y.npz")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(tmp_path / "y.npz") as found:
        for one in golden.outputs:
            wanted = np.load(tmp_path / "open" / one.file)[0]
            np.testing.assert_allclose(found[one.name], wanted, atol=1e-3)
