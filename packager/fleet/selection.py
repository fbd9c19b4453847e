"""Which devices are meant: by name, by group, by label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.contract.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packager.device.inventory import DeviceEntry


def select(
    known: Mapping[str, DeviceEntry], groups: Sequence[str] = (), labels: Sequence[str] = (), *, everyone: bool = False
) -> list[str]:
    """The names, sorted, of the devices in any of `groups` that have all of `labels` ("key=value").

    Raises UsageError for a group or label that no device has, and when nothing is left.
    """
    if not (groups or labels or everyone):
        return []
    found = set(known)
    if groups:
        there = {group for entry in known.values() for group in groups_of(entry)}
        for group in groups:
            if group not in there:
                raise unknown_name("group", group, there)
        found = {name for name in found if set(groups) & set(groups_of(known[name]))}
    for label in labels:
        key, sign, value = label.partition("=")
        if not sign:
            raise UsageError(f"not a label: {label!r}", expected="key=value", code="bad-label")
        there = {label_ for entry in known.values() for label_ in labels_of(entry)}
        if label not in there:
            raise unknown_name("label", label, there)
        found = {name for name in found if (f"{key}={value}") in labels_of(known[name])}
    if not found:
        asked = " ".join([*(f"--group {one}" for one in groups), *(f"--label {one}" for one in labels)]) or "--all"
        raise UsageError("no device is meant", where=asked, expected="at least one", code="none-selected")
    return sorted(found)


def groups_of(entry: DeviceEntry) -> list[str]:
    """The device's groups."""
    return [str(group) for group in entry.options.get("groups", [])]


def labels_of(entry: DeviceEntry) -> list[str]:
    """The device's labels, as "key=value"."""
    return [f"{key}={value}" for key, value in entry.options.get("labels", {}).items()]
