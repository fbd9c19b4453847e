"""A system of 2021 without pip, numpy or a runtime: it gets the versions that run there, and then runs bundles."""

import tempfile
from pathlib import Path

import pytest

from agent.contract.errors import DeviceError
from tests.device.bench import old_system

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(old_system.why_not()), reason=old_system.why_not()),
    pytest.mark.timeout(900),
]


@pytest.fixture
def old(edgepack, client, user_key):
    public = user_key.with_name("id_ed25519.pub").read_text()
    try:
        device = old_system.make(tempfile.mkdtemp(prefix="edgepack-old-"), public)
    except DeviceError as error:
        if error.what.startswith("fetching Debian packages"):
            pytest.skip(f"no packages of Debian {old_system.SUITE}: {error.what}")
        raise
    client.trust(device)
    edgepack("devices", "add", "old", device.address)
    yield device
    device.remove()


def test_an_old_system_is_provisioned_with_what_runs_there(edgepack, bundle, old):
    told = edgepack("bench", bundle, "old", code=4).stderr
    assert "edgepack devices provision old" in told

    brought = edgepack.json("devices", "provision", "old", "--runtime", "onnxruntime", "--runtime", "tflite")
    versions = {name.split("-")[0]: name.split("-")[1:3] for name in brought["wheels"]}
    # The last releases for Python 3.9: those of today begin with 3.11, and ask for a newer glibc.
    assert versions["onnxruntime"] == ["1.19.2", "cp39"]
    assert versions["numpy"] == ["2.0.2", "cp39"]
    assert versions["ai_edge_litert"][1] == "cp39"

    facts = edgepack.json("devices", "doctor", "old")["facts"]
    assert (facts["libc"], facts["python"].rpartition(".")[0]) == (f"glibc-{old_system.GLIBC}", old_system.PYTHON)
    assert {one["name"]: one["version"] for one in facts["runtimes"] if one["version"]} == {
        "onnxruntime": "1.19.2",
        "tflite": versions["ai_edge_litert"][0],
    }

    (report,) = edgepack.json("bench", bundle, "old", "--runs", 3, "--rounds", 1)["reports"]
    assert report["parity"]["verdict"] == "pass"
    assert report["runtime"]["version"] == "1.19.2"
    # No root, no pip: all of it lies in edgepack's own folder there.
    site = Path(str(old.root) + brought["folder"])
    assert (site / "onnxruntime").is_dir()
    assert site.stat().st_uid == 1000
