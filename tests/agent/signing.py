"""Keys, and bundles signed with them."""

import subprocess
from pathlib import Path

from packager.bundle.sign import sign
from tests.agent.bundles import write_bundle


def key(folder, name="key"):
    """A new SSH key without a passphrase."""
    path = Path(folder) / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


def public(path):
    return path.with_name(path.name + ".pub").read_text()


def allowed(path, who="alice@example.org", options=""):
    return f"{who} {options}{public(path)}"


def signed(path, *keys, **changes):
    """A small bundle with these keys' signatures; its digest."""
    digest = write_bundle(path, **changes)
    for one in keys:
        sign(path, one)
    return digest
