"""The archive that the kernel unpacks, and the order in which modules must go in."""

import pytest

from agent.contract.errors import DeviceError
from packager.emulate.kernel import Entry, cpio, module_order


def read_cpio(raw):
    """An independent reader of the newc form (cpio(5)): name to (mode, data)."""
    entries, at = {}, 0
    while True:
        assert raw[at : at + 6] == b"070701"
        fields = [int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = raw[at + 110 : at + 110 + name_size - 1].decode()
        start = at + 110 + name_size + (-(at + 110 + name_size) % 4)
        if name == "TRAILER!!!":
            return entries, start
        entries[name] = fields[1], raw[start : start + size]
        at = start + size + (-(start + size) % 4)


def test_archive_can_be_read_back_and_joined():
    one = cpio([Entry("bin"), Entry("bin/sh", b"#!", 0o755), Entry("empty", b"")])
    two = cpio([Entry("keys/k", b"abc", 0o600)])
    assert len(one) % 4 == 0  # else the next archive would not be found
    entries, end = read_cpio(one + two)
    assert entries == {"bin": (0o040755, b""), "bin/sh": (0o100755, b"#!"), "empty": (0o100644, b"")}
    assert read_cpio((one + two)[end:])[0] == {"keys/k": (0o100600, b"abc")}


@pytest.fixture
def modules(tmp_path):
    needs = {
        "ext4": "jbd2,mbcache",
        "jbd2": "",
        "mbcache": "",
        "virtio_net": "net-failover",
        "net_failover": "failover",
        "failover": "",
    }
    for name, needed in needs.items():
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF\0alias=x\0depends=" + needed.encode() + b"\0intree=Y\0")
    return {path.stem: path for path in tmp_path.glob("*.ko")}


def test_each_module_comes_after_its_needs(modules):
    assert module_order(modules, ["virtio_net", "ext4"]) == [
        "failover", "net_failover", "virtio_net", "jbd2", "mbcache", "ext4",
    ]  # fmt: skip


def test_a_module_that_is_not_there(modules):
    with pytest.raises(DeviceError, match="no module btrfs"):
        module_order(modules, ["btrfs"])
