"""A roll-out to real devices in stages: a sick stage goes back, the next never begins; verbs on a group of devices."""

import json

import pytest

from tests.device.road import PACKAGES, digest_of, with_file

FLEET = """
[groups.lab]
python = "{python}"
"""
DEVICE = """
[devices.{name}]
address = "{address}"
groups = ["lab"]
labels = {{ rev = "{rev}" }}
"""


@pytest.fixture
def lab(sshd, interpreters, edgepack):
    """Four devices in a fleet file; d3 has no runtime, and so cannot be well."""
    devices = {f"d{number}": sshd() for number in range(1, 5)}
    text = FLEET.format(python=interpreters(*PACKAGES))
    for name, device in devices.items():
        device.root = device.home / ".edgepack"
        text += DEVICE.format(name=name, address=device.address, rev="a" if name == "d1" else "b")
        if name == "d3":
            text += f'python = "{interpreters("numpy")}"\n'
    file = edgepack.home / "fleet.toml"
    file.write_text(text)
    edgepack.environment["EDGEPACK_FLEET"] = str(file)
    return devices


def lines(edgepack, *arguments, code=0):
    """The JSON lines: results by device, stages, the summary."""
    told = [json.loads(line) for line in edgepack(*arguments, "--json", code=code).stdout.splitlines()]
    by_device = {one["device"]: one for one in told if "device" in one}
    return by_device, [one for one in told if "stage" in one], told[-1]["summary"]


def current(device):
    """The bundle at the stable path, "" for none."""
    place = device.root / "slots" / "vision" / "current"
    return "sha256:" + place.resolve().name if place.exists() else ""


def test_a_sick_stage_goes_back_and_the_next_never_begins(lab, edgepack, bundle, tmp_path):
    new = with_file(bundle, tmp_path / "new.edgepack", bytes(1000))
    first, second = digest_of(bundle), digest_of(new)
    told, stages, summary = lines(edgepack, "rollout", bundle, "d1", "d2", "d4", "--slot", "vision")
    assert sorted(told) == ["d1", "d2", "d4"]
    assert (summary["done"], summary["failed"], len(stages)) == (3, 0, 1)

    words = ("rollout", new, "--group", "lab", "--slot", "vision", "--stages", "1,3,100%", "--halt-on", "10%")
    told, stages, summary = lines(edgepack, *words, code=6)
    assert told["d3"]["error"]["code"] == "no-runtime"
    assert [(one["devices"], one["failed"], one["halted"]) for one in stages] == [(1, 0, False), (2, 1, True)]
    assert (stages[1]["rolled_back"], stages[1]["stuck"]) == (["d2"], [])
    assert summary == {"done": 2, "failed": 1, "done_before": 0, "halted": True}
    assert [current(lab[name]) for name in ("d1", "d2", "d3", "d4")] == [second, first, "", first]

    # Many devices at once, chosen by label or named.
    told, _, summary = lines(edgepack, "devices", "prune", "--label", "rev=b", "--keep", "0")
    assert sorted(told) == ["d2", "d3", "d4"]
    assert told["d2"]["removed"] == [second]
    words = ("rollback", "--label", "rev=a", "--slot", "vision", "--leaving", second)
    assert lines(edgepack, *words)[0]["d1"]["slot"]["current"] == first
    assert lines(edgepack, *words)[0]["d1"]["checks"] == []  # asked again: no harm
    told, _, summary = lines(edgepack, "rollback", "d1", "d4", "--slot", "vision", code=4)
    assert {name: one["error"]["code"] for name, one in told.items()} == {"d1": "no-previous", "d4": "no-previous"}
    told, _, _ = lines(edgepack, "activate", "--label", "rev=a", "--slot", "vision", "--bundle", second)
    assert told["d1"]["slot"]["current"] == second
    told, _, _ = lines(edgepack, "devices", "check", "d1", "d4", "--slot", "vision")
    assert {one["whole"] for one in told.values()} == {True}
    assert "d1: 2 bundles, all whole" in edgepack("devices", "check", "d1", "d4").stdout


def test_a_device_too_slow_has_its_old_bundle_again(lab, edgepack, bundle, tmp_path):
    new = with_file(bundle, tmp_path / "new.edgepack", bytes(1000))
    edgepack("push", bundle, "d1", "--slot", "vision")
    words = ("rollout", new, "d1", "d4", "--slot", "vision", "--stages", "1,2", "--latency-budget", "0.000001")
    told, stages, _ = lines(edgepack, *words, code=6)
    assert told["d1"]["error"]["code"] == "latency"
    assert [(one["devices"], one["halted"]) for one in stages] == [(1, True)]
    assert (current(lab["d1"]), current(lab["d4"])) == (digest_of(bundle), "")

    # One whose slot had nothing before has nothing again.
    told, stages, _ = lines(edgepack, "rollout", new, "d4", "--slot", "vision", "--latency-budget", "0.000001", code=6)
    assert (told["d4"]["error"]["code"], stages[0]["stuck"], current(lab["d4"])) == ("latency", [], "")
    assert "the slot 'vision' holds no bundle" in edgepack("devices", "check", "d4", "--slot", "vision", code=4).stderr
