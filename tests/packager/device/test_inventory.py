"""The devices we know by name."""

import json
import sys
import threading

import pytest

from agent.contract.errors import ContractError, DeviceError, UsageError
from packager.device import inventory
from packager.device.inventory import DeviceEntry
from packager.device.local import LocalTransport


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/edgepack/devices.json"


def test_add_get_list_remove(file):
    assert inventory.entries() == {}
    entry = inventory.add("orin", DeviceEntry("me@kitchen:2222", python="~/venv/bin/python", profile="jetson-orin"))
    inventory.add("a.b-c_1", DeviceEntry("10.0.0.7"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["schema"] == "edgepack.devices/1"
    assert list(inventory.entries()) == ["a.b-c_1", "orin"]
    assert inventory.get("orin") == inventory.resolve("orin") == entry
    assert entry.name == "orin"
    assert inventory.remove("orin") == entry
    assert list(inventory.entries()) == ["a.b-c_1"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["devices.json", "devices.lock"]


@pytest.mark.parametrize(
    "name", ["", "local", "adb:x", "qemu:x", "-x", ".x", "a/b", "a b", "a@b", "ü", "a" * 65, "a\n"]
)
def test_names_that_no_device_may_have(file, name):
    with pytest.raises(UsageError) as caught:
        inventory.add(name, DeviceEntry("host"))
    assert caught.value.code == "bad-name"
    assert not file.exists()


def test_address_that_is_none(file):
    with pytest.raises(UsageError) as caught:
        inventory.add("x", DeviceEntry("host:port"))
    assert caught.value.code == "bad-address"


def test_name_that_is_taken(file):
    inventory.add("orin", DeviceEntry("one"))
    with pytest.raises(UsageError) as caught:
        inventory.add("orin", DeviceEntry("two"))
    assert caught.value.code == "exists"
    inventory.add("orin", DeviceEntry("two"), replace=True)
    assert inventory.get("orin").address == "two"


def test_unknown_name_knows_the_nearest(file):
    inventory.add("kitchen", DeviceEntry("one"))
    for call in (inventory.get, inventory.remove):
        with pytest.raises(UsageError, match="did you mean 'kitchen'"):
            call("kichen")


def test_what_a_device_may_be(file):
    assert inventory.resolve("local") == DeviceEntry("local", python=sys.executable, kind="local", name="local")
    assert inventory.resolve("me@host:22") == DeviceEntry("me@host:22", name="me@host:22")
    assert inventory.resolve("adb:1234") == DeviceEntry("adb:1234", kind="adb", name="adb:1234")
    with pytest.raises(UsageError):
        inventory.resolve("a b")


def test_own_identity_and_known_hosts(file, tmp_path):
    entry = DeviceEntry("me@127.0.0.1:9", options={"identity": "~/k", "known_hosts": str(tmp_path / "hosts")})
    address = inventory.address_of(entry)
    assert address.identities == (tmp_path / "k",)
    assert address.identities_only
    assert address.known_hosts == (tmp_path / "hosts",)


def test_local_transport_opens(file):
    transport = inventory.open_transport(inventory.resolve("local"))
    assert isinstance(transport, LocalTransport)
    assert transport.run(["echo", "hi"]).stdout == b"hi\n"


def test_misspelt_name_is_recognised(file):
    inventory.add("kitchen.invalid", DeviceEntry("10.0.0.7"))
    with pytest.raises(DeviceError) as caught:
        inventory.open_transport(inventory.resolve("kichen.invalid"))
    assert caught.value.code == "unknown-host"
    assert "did you mean the device 'kitchen.invalid'" in caught.value.fix


def test_unknown_kind(file):
    with pytest.raises(UsageError, match="kind of device"):
        inventory.open_transport(DeviceEntry("x", kind="smoke"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": "edgepack.devices/2"}', '{"schema": "edgepack.devices/1", "x": 1}']
)
def test_file_that_is_not_ours_is_left_alone(file, text):
    file.parent.mkdir(parents=True)
    file.write_text(text)
    for call in (inventory.entries, lambda: inventory.add("x", DeviceEntry("y")), lambda: inventory.remove("x")):
        with pytest.raises(ContractError, match=r"devices\.json"):
            call()
    assert file.read_text() == text


def test_folder_that_cannot_be_written(file):
    file.parent.parent.write_text("a file")
    with pytest.raises(UsageError):
        inventory.add("x", DeviceEntry("y"))


def test_many_add_at_once(file):
    def add(number):
        inventory.add(f"d{number}", DeviceEntry(f"h{number}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inventory.entries()) == 20
