"""The loopback device keeps its promises: its own name, user, disk and limits, and it dies whole."""

import subprocess

import pytest

from tests.device.bench import cgroup
from tests.device.bench.loopback import why_not_isolated
from tests.device.sshd import SSHD, make_user, remove_user

pytestmark = [pytest.mark.device, pytest.mark.skipif(not SSHD, reason="OpenSSH's sshd is not installed")]
isolated = pytest.mark.skipif(bool(why_not_isolated()), reason=why_not_isolated())
limited = pytest.mark.skipif(bool(cgroup.why_not()), reason=cgroup.why_not())


@pytest.fixture
def sh(user_key, tmp_path):
    def run(device, command, **options):
        known = tmp_path / f"known-{device.name}"
        known.write_text(device.known_line())
        argv = ["ssh", "-F", "none", "-i", str(user_key), "-p", str(device.port), "-o", f"UserKnownHostsFile={known}"]
        argv += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-l", device.user, device.host, command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **options)

    return run


def test_home_and_user_are_its_own(loopback, sh):
    one = loopback()
    done = sh(one, "echo $HOME; id -un; cd; pwd")
    assert done.stdout.split() == [str(one.home), one.user, str(one.home)], done.stderr


@isolated
def test_two_devices_share_neither_name_nor_processes(loopback, sh):
    one, two = loopback(name="kitchen"), loopback(name="cellar")
    assert sh(one, "hostname").stdout == "kitchen\n"
    assert sh(two, "hostname; cat /etc/hostname").stdout == "cellar\ncellar\n"
    # Process 1 is its own sshd, and of the other one's nothing is seen.
    assert sh(two, "tr '\\0' ' ' < /proc/1/cmdline").stdout.count(str(two.folder)) == 1
    assert str(one.folder) not in sh(two, "cat /proc/[0-9]*/cmdline 2>&1").stdout
    assert subprocess.run(["id", one.user], capture_output=True, check=False).returncode != 0


@isolated
def test_a_user_added_on_the_host_does_not_take_the_device_its_own(loopback, sh):
    one = loopback()
    made = make_user()
    try:
        assert sh(one, "id -un; id -un " + made).stdout == one.user + "\n"
    finally:
        remove_user(made)
    assert sh(one, "id -un").stdout == one.user + "\n"


def test_power_cut_kills_all_and_keeps_the_disk(loopback, sh):
    one = loopback()
    # A process that has left its session, as a careless agent would leave it.
    assert sh(one, "echo kept > kept; setsid sleep 4242 > /dev/null 2>&1 < /dev/null &").returncode == 0
    assert sh(one, "cat kept").stdout == "kept\n"
    before = one.host_key
    one.power_cut()
    assert sh(one, "true").returncode == 255
    one.start()
    assert sh(one, "cat kept").stdout == "kept\n"
    assert one.host_key == before
    if one.isolated:
        assert "4242" not in sh(one, "cat /proc/[0-9]*/cmdline").stdout


@isolated
@limited
def test_memory_limit_ends_what_takes_more(loopback, sh):
    one = loopback(memory_bytes=96 << 20)
    assert sh(one, "/usr/bin/python3 -c 'x = bytearray(16 << 20); print(len(x))'").stdout == "16777216\n"
    assert sh(one, "/usr/bin/python3 -c 'x = bytearray(200 << 20)'").returncode != 0
    assert sh(one, "echo still here").stdout == "still here\n"


@isolated
@limited
def test_processor_limit_makes_it_slower(loopback, sh):
    # A lower bound only: 0.6 s of work at a fifth of a processor take three, on a busy host more.
    busy = "import time; t = time.monotonic()\nwhile time.process_time() < 0.6: pass\nprint(time.monotonic() - t)"
    assert float(sh(loopback(cpus=0.2), f"/usr/bin/python3 -c '{busy}'").stdout) > 2.0


@isolated
def test_full_disk(loopback, sh):
    one = loopback(disk_bytes=8 << 20)
    done = sh(one, "head -c 20000000 /dev/zero > big")
    assert done.returncode != 0
    assert "No space left" in done.stderr
    one.restart()
    size = int(sh(one, "wc -c < big").stdout)
    assert 4 << 20 < size < 8 << 20
