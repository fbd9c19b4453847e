"""A device's trust, and the signatures that travel beside a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.signatures import Trust
from packager.device.answers import decoded, part

if TYPE_CHECKING:
    from agent.contract.archive import BundleReader
    from packager.device.device import Device


def deliver(device: Device, reader: BundleReader) -> None:
    """Brings the bundle's signatures to a device that has the bundle. A bundle without any costs nothing."""
    if reader.signatures:
        texts = {name: raw.decode("ascii") for name, raw in reader.signatures.items()}
        device.session.call("vouch", {"digest": reader.digest, "signatures": texts})


def show(device: Device) -> tuple[Trust, dict[str, Any]]:
    """Whom the device trusts, and what it says of its ssh-keygen."""
    return _told(device, {})


def set_trust(device: Device, trust: Trust) -> tuple[Trust, dict[str, Any]]:
    """Sets it, in one step: new signers are there, or the old ones are."""
    return _told(device, {"trust": codec.encode(trust)})


def _told(device: Device, arguments: dict[str, Any]) -> tuple[Trust, dict[str, Any]]:
    answer = device.session.call("trust", arguments)
    return decoded(Trust, part(answer, "trust", dict, device.address), device.address), answer
