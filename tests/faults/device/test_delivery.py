"""What goes wrong while a bundle is delivered over SSH: a cut, a restart, two hosts, a name clash, damage."""

import os
import subprocess

import pytest

from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from packager.device.device import Device
from packager.device.push import PushOptions
from tests.device.road import digest_of, finish, half_written, with_file

GOLDEN = "running golden inputs"


@pytest.fixture
def second(bundle, tmp_path):
    """The same model under another digest."""
    return with_file(bundle, tmp_path / "second.edgepack", bytes(1000))


def once(message, act):
    """Progress that calls `act` the first time that the device says `message`."""
    done = []

    def progress(said):
        if said == message and not done:
            done.append(True)
            act()

    return progress


def test_ssh_dropped_during_activate(board, bundle, second):
    kitchen = board("kitchen")
    with Device("kitchen") as device:
        device.push(bundle, PushOptions(slot="vision"))
        device.push(second)
    with Device("kitchen", progress=once(GOLDEN, kitchen.cut_sessions)) as device:
        done = device.activate("vision", digest_of(second))
        assert (done["slot"]["current"], done["replaced"]) == (digest_of(second), digest_of(bundle))
    assert not list((kitchen.root / "results").iterdir()), "what the host has is not kept"


def test_a_device_that_is_restarted_during_activate_is_asked_again(board, bundle, second):
    kitchen = board("kitchen")
    with Device("kitchen") as device:
        device.push(bundle, PushOptions(slot="vision"))
    # The agent dies with the link, as when the power is cut.
    with Device("kitchen", progress=once(GOLDEN, kitchen.kill_sessions)) as device:
        done = device.push(second, PushOptions(slot="vision"))["activated"]
    assert (done["slot"]["current"], done["slot"]["previous"]) == (digest_of(second), digest_of(bundle))
    with Device("kitchen", progress=once(GOLDEN, kitchen.kill_sessions)) as device:
        with pytest.raises(TransientDeviceError) as caught:
            device.rollback("vision")
        assert caught.value.code == "job-gone"
        assert caught.value.fix == "do it again"
        assert device.rollback("vision")["slot"]["current"] == digest_of(bundle)


def test_an_activation_whose_host_has_gone_is_no_report(board, bundle, edgepack):
    kitchen = board("kitchen")
    with Device("kitchen") as device:
        device.push(bundle)
        device.session.call("activate", {"slot": "vision", "digest": digest_of(bundle)})  # nobody fetches its result
    assert len(list((kitchen.root / "results").iterdir())) == 1
    assert edgepack.json("results", "collect", "kitchen")["runs"] == []
    assert not list((kitchen.root / "results").iterdir())


def test_a_push_goes_on_after_a_cut(board, bundle, tmp_path):
    kitchen = board("kitchen")
    size = 24 << 20
    big = with_file(bundle, tmp_path / "big.edgepack", os.urandom(size))
    seen, cut = [], []

    def sent(count):
        seen.append(count)
        if sum(seen) > size // 2 and not cut:
            cut.append(True)
            kitchen.cut_sessions()

    with Device("kitchen") as device:
        told = device.push(big, PushOptions(slot="vision"), sent)
    assert cut
    assert told["bytes_resumed"] > 0
    assert told["bytes_sent"] < 1.8 * size  # what was under way is sent again, and not the rest
    assert told["activated"]["slot"]["current"] == digest_of(big)
    assert half_written(kitchen.root) == []


def test_two_hosts_pushing_at_once(board, bundle, second, edgepack):
    kitchen = board("kitchen")
    both = [edgepack.start("push", one, "kitchen", "--slot", "vision") for one in (bundle, second)]
    assert [finish(one)[0] for one in both] == [0, 0]
    with Device("kitchen") as device:
        told = device.verify()
    held = {row["bundle"]: row["slots"] for row in told["bundles"]}
    assert [row["error"] for row in (*told["bundles"], *told["problems"]) if row["error"]] == []
    assert sorted(held) == sorted([digest_of(bundle), digest_of(second)])
    assert sorted(held.values()) == [["vision current"], ["vision previous"]]
    assert half_written(kitchen.root) == []


def test_a_name_clash(board, bundle, second, edgepack, refused):
    kitchen = board("kitchen")
    for one in (bundle, second):
        edgepack("push", one, "kitchen", "--slot", "vision", "--no-activate")
    rows = edgepack.json("devices", "list-bundles", "kitchen")
    assert {row["digest"] for row in rows} == {digest_of(bundle), digest_of(second)}
    assert len({row["name"] for row in rows}) == 1
    said = refused(4, kitchen, "activate", "kitchen", "--slot", "vision", "--bundle", "sha256:")
    assert "more than one bundle begins" in said
    assert digest_of(bundle) in said
    done = edgepack.json("activate", "kitchen", "--slot", "vision", "--bundle", digest_of(bundle)[:20])
    assert done["slot"]["current"] == digest_of(bundle)


def test_activate_of_what_is_not_there_any_more(board, bundle, second):
    board("kitchen")
    with Device("kitchen") as device:
        device.push(bundle, PushOptions(slot="vision"))
        device.push(second)
        device.remove(digest_of(second))
        with pytest.raises(DeviceError) as caught:
            device.activate("vision", digest_of(second))
        assert caught.value.code == "no-bundle"
        with pytest.raises(DeviceError) as caught:
            device.remove(digest_of(bundle))
        assert caught.value.code == "in-use"
        assert device.verify("vision")["bundles"][0]["slots"] == ["vision current"]
        assert device.rollback("vision", leaving=digest_of(second))["checks"] == []
        with pytest.raises(UsageError):
            device.rollback("vision", leaving="latest")


def test_who_did_what_is_known_on_host_and_device(board, bundle, second, edgepack):
    kitchen = board("kitchen")
    kitchen.root.mkdir(mode=0o755)
    os.chown(kitchen.root, kitchen.home.stat().st_uid, -1)
    for one in (bundle, second):
        edgepack("push", one, "kitchen", "--slot", "vision")
    edgepack("rollback", "kitchen", "--slot", "vision")
    edgepack("rollback", "kitchen", "--slot", "vision", code=4)
    edgepack("devices", "prune", "kitchen", "--keep", "0")
    first, last = digest_of(bundle), digest_of(second)
    wanted = [
        ("receive", "done", first), ("activate", "done", first), ("receive", "done", last), ("activate", "done", last),
        ("rollback", "done", first), ("rollback", "failed", None), ("prune", "done", None),
    ]  # fmt: skip
    for rows in (edgepack.json("audit"), edgepack.json("audit", "kitchen")):
        ended = [row for row in rows if row["outcome"] != "begun"]
        assert [(row["event"], row["outcome"], row.get("digest")) for row in ended] == wanted
        assert {row["slot"] for row in ended[:-1]} == {"vision"}
        assert (ended[-1]["removed"], ended[-2]["code"]) == ([last], "no-previous")
        assert all("@" in row["who"] and row["at"] > 0 for row in ended)
    assert kitchen.root.stat().st_mode & 0o077 == 0
    assert [
        path for path in kitchen.root.rglob("*.json") if path.parent == kitchen.root and path.stat().st_mode & 0o077
    ] == []


def test_damage_is_found_and_repaired(board, bundle, edgepack):
    kitchen = board("kitchen")
    edgepack("push", bundle, "kitchen", "--slot", "vision")
    model = kitchen.root / "slots" / "vision" / "current" / "model" / "model.onnx"
    raw = model.read_bytes()
    model.chmod(0o600)
    model.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    told = edgepack.json("devices", "check", "kitchen", code=7)
    assert told["whole"] is False
    assert edgepack.json("push", bundle, "kitchen")["pushed"][0]["already_there"]
    (repaired,) = edgepack.json("push", bundle, "kitchen", "--repair")["pushed"]
    assert len(raw) <= repaired["bytes_sent"] < len(raw) + 1000
    assert model.read_bytes() == raw
    assert edgepack.json("devices", "check", "kitchen")["whole"] is True


def test_a_full_disk_during_activate(board, bundle, second, refused, edgepack, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    kitchen = board("kitchen")
    with Device("kitchen") as device:
        device.push(bundle, PushOptions(slot="vision"))
        device.push(second)
    place = kitchen.home / ".edgepack"
    kept = tmp_path / "kept"
    subprocess.run(["cp", "-a", place, kept], check=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted: {done.stderr.decode().strip()}")
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", place], check=True)
        with pytest.raises(OSError, match="No space"):
            (place / "full").write_bytes(bytes(32 << 20))
        said = refused(4, kitchen, "activate", "kitchen", "--slot", "vision", "--bundle", digest_of(second))
        assert "no space left on the device" in said
        with Device("kitchen") as device:
            (row,) = device.verify("vision")["bundles"]
            assert (row["bundle"], row["error"]) == (digest_of(bundle), None)
            assert device.prune(0)["removed"] == [digest_of(second)]
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        for words in (("rollback", "kitchen", "--slot", "vision"), ("devices", "prune", "kitchen", "--keep", "0")):
            assert "read-only" in refused(4, None, *words)
        with Device("kitchen") as device:
            assert device.verify("vision")["bundles"][0]["error"] is None
    finally:
        subprocess.run(["umount", "-l", place], check=True)
