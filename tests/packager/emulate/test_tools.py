"""A host that lacks something is told what, and the one command that brings it."""

import os
import sys

import pytest

from agent.contract.errors import DeviceError
from packager.emulate import tools


@pytest.fixture
def bare_host(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())


def test_no_qemu(bare_host):
    assert tools.missing_packages(building=False) == ["openssh-client", "qemu-system-arm"]
    assert "e2fsprogs" in tools.missing_packages()
    with pytest.raises(DeviceError) as caught:
        tools.need_packages(building=False)
    assert caught.value.exit_code == 4
    assert caught.value.fix == "sudo apt-get install --no-install-recommends openssh-client qemu-system-arm"


def test_no_apt_to_install_with(bare_host):
    with pytest.raises(DeviceError, match="qemu-system-arm"):
        tools.install_packages(["qemu-system-arm"])


def test_nothing_missing_installs_nothing(bare_host):
    tools.install_packages([])


def test_a_failing_program_is_quoted():
    with pytest.raises(DeviceError) as caught:
        tools.run([sys.executable, "-c", "raise SystemExit('no such luck')"], what="trying")
    assert "no such luck" in caught.value.expected
    assert caught.value.what.startswith("trying failed")


def test_a_program_that_hangs():
    with pytest.raises(DeviceError, match=r"did not end within 0\.2 s"):
        tools.run(["sleep", "30"], what="waiting", deadline=0.2)


def test_a_program_that_is_not_there():
    with pytest.raises(DeviceError, match="no program 'edgepack-no-such-program'"):
        tools.run(["edgepack-no-such-program"], what="trying")


def test_output_and_environment():
    said = tools.run(
        ["sh", "-c", "cat; echo $WORD"], what="saying", stdin=b"in ", environment={**os.environ, "WORD": "out"}
    )
    assert said == "in out\n"
