"""edgepack devices emulate: what it refuses before any machine is made."""

import pytest

from packager.emulate import tools


@pytest.fixture
def equipped(monkeypatch):
    """Nothing is missing on this host, or so it seems."""
    monkeypatch.setattr(tools, "missing_packages", lambda **_: [])


def test_the_name_of_a_real_device_is_refused_and_its_entry_kept(edgepack, equipped):
    assert edgepack("devices", "add", "kitchen", "pi@kitchen.local").status == 0
    done = edgepack("devices", "emulate", "raspberry-pi-4", "--name", "kitchen")
    assert (done.status, done.out) == (2, "")
    assert "pi@kitchen.local" in done.err
    assert "--name" in done.err
    (row,) = [one for one in edgepack("devices", "list", "--json").json if one["name"] == "kitchen"]
    assert (row["kind"], row["address"]) == ("ssh", "pi@kitchen.local")


def test_no_qemu(edgepack, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())
    done = edgepack("devices", "emulate", "raspberry-pi-4")
    assert (done.status, done.out) == (4, "")
    assert "sudo apt-get install --no-install-recommends" in done.err
    assert "qemu-system-arm" in done.err


def test_a_processor_that_cannot_be_emulated(edgepack, equipped):
    done = edgepack("devices", "emulate", "jetson-orin")
    assert (done.status, done.out) == (3, "")
    assert "raspberry-pi-5" in done.err


@pytest.mark.parametrize("name", ["../x", "UPPER", "a b", "local"])
def test_a_name_that_no_machine_may_have(edgepack, equipped, name):
    done = edgepack("devices", "emulate", "raspberry-pi-4", "--name", name)
    assert (done.status, done.out) == (2, "")
    assert "name" in done.err


@pytest.mark.parametrize("verb", ["stop", "remove"])
def test_an_unknown_device(edgepack, verb):
    done = edgepack("devices", verb, "nobody")
    assert (done.status, done.out) == (2, "")
    assert "'nobody'" in done.err
