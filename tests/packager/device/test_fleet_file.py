"""The fleet file: what devices have in common, who is chosen, and each clash by its name."""

import pytest

from agent.contract.errors import ContractError, UsageError
from packager.device import fleet_file, inventory
from packager.fleet.selection import select

TEXT = """
[defaults]
python = "/opt/venv/bin/python"
labels = { site = "lab" }
[groups.kitchen]
jump = "bastion"
profile = "raspberry-pi-5"
labels = { rev = "a" }
[devices.kitchen-1]
address = "pi@10.0.0.11:2222"
groups = ["kitchen", "pi"]
labels = { rev = "b" }
[devices.kitchen-2]
groups = ["kitchen"]
root = "/data/edgepack"
[devices.attic]
"""


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / "fleet.toml"
        path.write_text(text)
        monkeypatch.setenv(fleet_file.VARIABLE, str(path))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.setenv("HOME", str(tmp_path))
        return path

    return write


def test_devices_take_from_their_groups_and_the_defaults(fleet):
    fleet(TEXT)
    first, second, third = (inventory.resolve(name) for name in ("kitchen-1", "kitchen-2", "attic"))
    assert (first.address, first.python, first.profile) == (
        "pi@10.0.0.11:2222",
        "/opt/venv/bin/python",
        "raspberry-pi-5",
    )
    assert first.options["labels"] == {"site": "lab", "rev": "b"}
    assert (second.address, second.root, second.options["labels"]["rev"]) == ("kitchen-2", "/data/edgepack", "a")
    assert (third.address, third.profile, third.options["groups"]) == ("attic", "", [])
    address = inventory.address_of(first)
    assert [hop.host for hop in address.jumps] == ["bastion"]
    assert (address.user, address.port) == ("pi", 2222)


def test_selection(fleet):
    fleet(TEXT)
    known = inventory.everything()
    assert select(known, ["kitchen"]) == ["kitchen-1", "kitchen-2"]
    assert select(known, ["kitchen"], ["rev=b"]) == ["kitchen-1"]
    assert select(known, labels=["site=lab"]) == ["attic", "kitchen-1", "kitchen-2"]
    assert select(known, everyone=True) == sorted(known)
    assert select(known) == []
    with pytest.raises(UsageError, match="did you mean 'kitchen'"):
        select(known, ["kitchn"])
    with pytest.raises(UsageError, match="unknown label"):
        select(known, labels=["rev=z"])
    with pytest.raises(UsageError, match="no device is meant"):
        select(known, ["pi"], ["rev=a"])


def test_a_name_clash(fleet):
    fleet(TEXT)
    inventory.add("attic", inventory.DeviceEntry(address="10.0.0.9"))
    with pytest.raises(UsageError) as caught:
        inventory.resolve("attic")
    assert caught.value.code == "name-clash"


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("[devices.a", ContractError, "not TOML"),
        ("[devices.a]\n[devices.a]\n", ContractError, "not TOML"),
        ("[devices.a]\nadress = 'x'\n", ContractError, "did you mean 'address'"),
        ("[devices.a]\naddress='x'\n[devices.b]\naddress='x'\n", UsageError, "the same device"),
        ("[groups.k]\n[devices.a]\ngroups=['j']\n", UsageError, "unknown group"),
        (
            "[groups.j]\njump='x'\n[groups.k]\njump='y'\n[devices.a]\ngroups=['j','k']\n",
            UsageError,
            "do not agree on jump",
        ),
        ("[devices.'-a b']\naddress='x'\n", UsageError, "cannot be the name"),
    ],
)
def test_broken_fleet_files(fleet, text, kind, match):
    fleet(text)
    with pytest.raises(kind, match=match):
        inventory.everything()


def test_a_fleet_file_that_was_named_and_is_not_there(fleet):
    fleet("").unlink()
    with pytest.raises(UsageError, match="no such fleet file"):
        inventory.everything()
