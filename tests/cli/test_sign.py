"""edgepack sign, verify, inspect, audit; and a device that runs signed bundles only."""

import platform
import shutil
import subprocess
import time

import pytest

from tests.agent import signing
from tests.agent.conftest import PROFILES

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture
def key(place):
    made = signing.key(place)
    (place / "allowed").write_text(signing.allowed(made))
    shutil.copy(f"{made}.pub", place / "revoked")
    return made


@pytest.fixture
def here(edgepack, model, npz, key):
    """A bundle for this machine."""
    profile = PROFILES.get(platform.machine())
    if profile is None:
        pytest.skip("no profile for this machine")
    done = edgepack("build", "tiny.onnx", "-t", profile, "-c", "samples.npz", "-o", "b.edgepack")
    assert done.status == 0, done.err
    return npz.parent / "b.edgepack"


def test_sign_verify_inspect(edgepack, bundle, key):
    digest = edgepack("verify", bundle, "--json").json["digest"]
    assert edgepack("verify", bundle).out.endswith("not signed\n")
    assert edgepack("verify", bundle, "--allowed-signers", "allowed").status == 7
    (row,) = edgepack("sign", bundle, "--key", key, "--json").json
    document = edgepack("verify", bundle, "--allowed-signers", "allowed", "--json").json
    assert document["digest"] == digest
    (verdict,) = document["signatures"]
    assert (verdict["status"], verdict["principal"]) == ("valid", "alice@example.org")
    assert verdict["fingerprint"] == row["fingerprint"]
    assert "signed by alice@example.org, SHA256:" in edgepack("inspect", bundle, "--allowed-signers", "allowed").out
    assert edgepack("inspect", bundle, "--json").json["signatures"][0]["status"] == "unknown"
    assert edgepack("verify", bundle, "--allowed-signers", "allowed", "--revoked", "revoked").status == 7


def test_sign_with_what_is_no_key(edgepack, bundle, place):
    assert edgepack("sign", bundle, "--key", "nowhere").status == 2
    (place / "text").write_text("not a key")
    raw = bundle.read_bytes()
    done = edgepack("sign", bundle, "--key", "text")
    assert (done.status, bundle.read_bytes()) == (2, raw)
    assert "ssh-keygen did not sign" in done.err


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="ssh-agent is not installed")
def test_sign_with_a_key_that_only_the_agent_holds(edgepack, bundle, key, tmp_path, monkeypatch):
    socket = tmp_path / "agent.sock"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert agent.poll() is None
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(key)], check=True)
        key.unlink()
        assert edgepack("sign", bundle, "--key", f"{key}.pub").status == 0
        verdict = edgepack("verify", bundle, "--allowed-signers", "allowed", "--json").json["signatures"][0]
        assert (verdict["status"], verdict["principal"]) == ("valid", "alice@example.org")
        subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
        raw = bundle.read_bytes()
        refused = edgepack("sign", bundle, "--key", f"{key}.pub")
        assert (refused.status, bundle.read_bytes()) == (2, raw)
        assert "ssh-add -l" in refused.err
    finally:
        agent.kill()
        agent.wait()


def test_a_strict_device_runs_what_is_signed_and_nothing_else(edgepack, here, key):
    assert edgepack("devices", "trust", "local", "--signed-only").status == 2  # by whom?
    assert edgepack("devices", "trust", "local", "--allowed-signers", "allowed", "--signed-only").status == 0
    assert edgepack("devices", "trust", "local", "--json").json["signed_only"] is True
    assert edgepack("push", here, "local").status == 0
    unsigned = edgepack("rollout", here, "local", "--slot", "vision")
    assert unsigned.status == 6
    assert "the bundle is not signed" in unsigned.err
    assert "the bundle is not signed" in edgepack("bench", here, "local", "--runs", "2").err
    edgepack("sign", here, "--key", key)
    done = edgepack("rollout", here, "local", "--slot", "vision", "--json")
    assert done.status == 0, done.err
    assert edgepack("devices", "trust", "local", "--revoked", "revoked").status == 0
    revoked = edgepack("bench", here, "local", "--runs", "2")
    assert revoked.status == 7
    assert "has been revoked" in revoked.err
    events = [(row["event"], row["outcome"]) for row in edgepack("audit", "local", "--json").json]
    assert ("activate", "failed") in events
    assert ("activate", "done") in events
    assert ("activate", "done") in [(row["event"], row["outcome"]) for row in edgepack("audit", "--json").json]


def test_a_locked_device_is_not_measured_by_others(edgepack, here):
    assert edgepack("devices", "lock", "local", "--owner", "bob@desk", "--minutes", "5").status == 0
    busy = edgepack("bench", here, "local", "--runs", "2", "--wait", "0")
    assert busy.status == 5
    assert "bob@desk has the device" in busy.err
    assert edgepack("devices", "unlock", "local").status == 5
    assert edgepack("devices", "unlock", "local", "--force").status == 0


def test_a_group_of_one_comes_as_lines(edgepack, bundle, place, monkeypatch):
    (place / "fleet.toml").write_text('[devices.one]\naddress = "127.0.0.1:1"\ngroups = ["lab"]\n')
    monkeypatch.setenv("EDGEPACK_FLEET", "")  # the option sets it: given back after the test
    done = edgepack("push", bundle, "--group", "lab", "--inventory", "fleet.toml", "--retries", "0", "--json")
    lines = done.out.splitlines()
    assert (done.status, len(lines)) == (5, 2)
    assert '"summary": {"done": 0, "failed": 1, "done_before": 0}' in lines[-1]
    assert edgepack("push", bundle, "--group", "labb", "--inventory", "fleet.toml").status == 2
    assert edgepack("push", bundle).status == 2
