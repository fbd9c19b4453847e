"""The fleet as people write it: a TOML of devices, with groups, labels and what they have in common.

[defaults]
python = "~/venv/bin/python"
[groups.kitchen]
jump = "bastion"
profile = "raspberry-pi-5"
[devices.kitchen-1]
address = "pi@10.0.0.11"        # left out: the name is an ssh_config alias
groups = ["kitchen"]
labels = { rev = "b" }
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any, Optional

from agent.contract import codec
from agent.contract.errors import ContractError, UsageError, unknown_name

VARIABLE = "EDGEPACK_FLEET"
_MOST = 16 << 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """What devices may have in common; a device's own word counts before its groups', theirs before the defaults."""

    python: Optional[str] = None  # noqa: UP045 - the codec reads these types, and knows Optional
    profile: Optional[str] = None  # noqa: UP045
    root: Optional[str] = None  # noqa: UP045
    jump: Optional[str] = None  # noqa: UP045
    identity: Optional[str] = None  # noqa: UP045
    known_hosts: Optional[str] = None  # noqa: UP045
    labels: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FleetDevice(Settings):
    """One device. Without `address` its name is an ssh_config alias or a host."""

    address: Optional[str] = None  # noqa: UP045
    groups: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FleetFile:
    """The whole file."""

    devices: dict[str, FleetDevice] = dataclasses.field(default_factory=dict)
    groups: dict[str, Settings] = dataclasses.field(default_factory=dict)
    defaults: Settings = dataclasses.field(default_factory=Settings)
    schema: str = "edgepack.fleet/1"


def fleet_path() -> Path:
    """Where the file lies: $EDGEPACK_FLEET, or fleet.toml in the user's configuration folder."""
    import platformdirs

    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else platformdirs.user_config_path("edgepack") / "fleet.toml"


def load(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Every device by name: address, python, profile, root, and options (groups, labels, jump, identity, known_hosts).

    Nothing where there is no file, unless one was named. Raises ContractError, UsageError: "no-file", "same-device".
    """
    file = path or fleet_path()
    try:
        with file.open("rb") as stream:
            data = tomllib.loads(stream.read(_MOST).decode("utf-8"))
    except FileNotFoundError as error:
        if path is None and VARIABLE not in os.environ:
            return {}
        raise UsageError("there is no such fleet file", where=str(file), code="no-file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the fleet file cannot be read: {error}", where=str(file)) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ContractError(f"not TOML: {error}", where=str(file)) from error
    data.setdefault("schema", FleetFile.schema)
    return _filled(codec.decode(FleetFile, data, source=str(file)), str(file))


def _filled(fleet: FleetFile, where: str) -> dict[str, dict[str, Any]]:
    known = {group for device in fleet.devices.values() for group in device.groups}
    for group in fleet.groups:
        if group not in known:
            raise unknown_name("group", group, known, fix=f"give a device groups = [{group!r}], in {where}")
    made: dict[str, dict[str, Any]] = {}
    places: dict[tuple[str, str], str] = {}
    for name, device in fleet.devices.items():
        above = [fleet.groups[group] for group in device.groups if group in fleet.groups] + [fleet.defaults]
        merged = _merged(name, device, above, where)
        place = (merged["address"], merged["root"])
        if place in places:
            raise UsageError(
                f"{places[place]!r} and {name!r} are the same device",
                where=f"{merged['address']} in {where}",
                expected="each device once, or another root for the second",
                code="same-device",
            )
        places[place] = name
        made[name] = merged
    return made


def _merged(name: str, device: FleetDevice, above: list[Settings], where: str) -> dict[str, Any]:
    def first(field: str) -> str | None:
        own = getattr(device, field)
        if own is not None:
            return str(own)
        told = dict.fromkeys(value for one in above[:-1] if (value := getattr(one, field)) is not None)
        if len(told) > 1:
            raise UsageError(
                f"the groups of {name!r} do not agree on {field}",
                where=f"{', '.join(map(repr, told))} in {where}",
                fix=f"say it at the device itself: [devices.{name}] {field} = ...",
                code="group-clash",
            )
        common: str | None = getattr(above[-1], field)
        return next(iter(told), common)

    labels: dict[str, str] = {}
    for one in (*reversed(above), device):
        labels.update(one.labels)
    options: dict[str, Any] = {key: first(key) for key in ("jump", "identity", "known_hosts")}
    return {
        "address": device.address or name,
        "python": first("python") or "python3",
        "profile": first("profile") or "",
        "root": first("root") or "~/.edgepack",
        "options": {
            **{key: value for key, value in options.items() if value is not None},
            "groups": list(device.groups),
            "labels": labels,
        },
    }
