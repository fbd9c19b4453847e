"""Emulated ARM machines: they boot, keep their disk, count instructions, and fail in words."""

import dataclasses
import json
import shutil
import socket
import subprocess

import pytest

from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from packager.emulate import machine
from packager.emulate.image import KERNEL
from packager.emulate.qemu import Hardware
from packager.emulate.tools import missing_packages

MISSING = missing_packages()
pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: apt-get install {' '.join(MISSING)}"),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("emulated"),
]
A72 = Hardware("cortex-a72", memory_bytes=512 << 20)

# A number from busy code alone, in the guest's own nanoseconds; the work grows with the argument. Not a loop in Python: how
# its allocator behaves differs by a percent from process to process.
COUNT = """
import sys, time, zlib
data = b"x" * int(sys.argv[1])
zlib.crc32(data)
samples = []
for _ in range(21):
    start = time.perf_counter_ns(); zlib.crc32(data); samples.append(time.perf_counter_ns() - start)
print(sorted(samples)[10])
"""
# sdot v0.4s, v1.16b, v2.16b; ret
DOT_PRODUCT = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write((0x4E829420).to_bytes(4, "little") + (0xD65F03C0).to_bytes(4, "little"))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print("computed")
"""
INFERENCE = """
import json, numpy, onnxruntime, ai_edge_litert.interpreter
session = onnxruntime.InferenceSession("double.onnx", providers=["CPUExecutionProvider"])
x = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
print(json.dumps({"version": onnxruntime.__version__, "y": session.run(None, {"x": x})[0].tolist()}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("machines")
    yield home
    for each in machine.machines(home):
        machine.remove(each.name, home=home)


@pytest.fixture(scope="module")
def a72(image, home):
    return machine.create(image, A72, "a72", home=home)


def ssh(device, command, stdin="", user=""):
    argv = [*device.ssh_command(user), command]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=180, check=False)


def test_it_is_an_arm_machine_with_a_host_key_that_we_know(a72):
    done = ssh(a72, "uname -m; hostname; id -un; pwd; python3 -V; nproc")
    assert done.stdout.split() == ["aarch64", "a72", "edge", "/home/edge", "Python", *done.stdout.split()[5:6], "1"], (
        done
    )
    assert [finding.code for finding in a72.findings] == ["counts-instructions"]
    stranger = a72.folder / "stranger"
    stranger.write_text(a72.known_hosts_line.replace("AAAA", "AAAB", 1) + "\n")
    argv = [word.replace(str(a72.known_hosts_file), str(stranger)) for word in a72.ssh_command()]
    assert subprocess.run([*argv, "true"], capture_output=True, check=False).returncode == 255


def test_runtimes_infer_on_it(a72, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "double.onnx")
    argv = [*a72.ssh_command(), "cat > double.onnx"]
    subprocess.run(argv, input=(tmp_path / "double.onnx").read_bytes(), check=True, timeout=60)
    done = ssh(a72, "python3 -", INFERENCE)
    assert json.loads(done.stdout) == {"version": "1.32.0", "y": [[0, 2, 4], [6, 8, 10]]}, done.stderr


def test_another_machine_of_the_same_name(a72, image, home):
    with pytest.raises(DeviceError, match="already an emulated device 'a72'") as caught:
        machine.create(image, A72, "a72", home=home)
    assert "edgepack devices remove a72" in caught.value.fix
    assert machine.find("a72", home).running


def test_counts_repeat_and_follow_the_work_and_the_disk_is_kept(a72, home):
    first = int(ssh(a72, "python3 - 10000000", COUNT).stdout)
    more = int(ssh(a72, "python3 - 10100000", COUNT).stdout)
    assert more / first == pytest.approx(1.01, abs=0.001)
    assert ssh(a72, "echo kept > kept").returncode == 0
    stopped = machine.stop("a72", home=home)
    assert (stopped.running, stopped.findings) == (False, ())
    again = machine.start("a72", home=home)
    assert again.known_hosts_line == a72.known_hosts_line
    assert ssh(again, "cat kept").stdout == "kept\n"
    assert int(ssh(again, "python3 - 10000000", COUNT).stdout) == pytest.approx(first, rel=0.002)
    # 128 + SIGILL: an a72 has no dot product
    assert ssh(again, "python3 -; echo $?", DOT_PRODUCT).stdout == "132\n"


def test_power_cut_and_remove(image, home):
    device = machine.create(image, Hardware("cortex-a76", cores=2, memory_bytes=512 << 20), "a76", home=home)
    assert [finding.code for finding in device.findings] == ["counts-instructions", "one-core"]
    assert ssh(device, "python3 -", DOT_PRODUCT).stdout == "computed\n"
    assert ssh(device, "echo synced > a; sync").returncode == 0
    assert not machine.stop("a76", home=home, power_cut=True).running
    device = machine.start("a76", home=home)
    assert ssh(device, "cat a").stdout == "synced\n"
    machine.remove("a76", home=home)
    assert not device.running
    assert not device.folder.exists()
    with pytest.raises(UsageError, match="unknown emulated device 'a76'"):
        machine.find("a76", home)


@pytest.mark.long
def test_small_memory_and_real_time(image, home):
    device = machine.create(
        image, Hardware("cortex-a53", cores=2, memory_bytes=160 << 20, count=False), "a53", home=home
    )
    assert [finding.code for finding in device.findings] == ["emulated-time"]
    assert ssh(device, "nproc").stdout == "2\n"
    assert ssh(device, "python3 -c 'import numpy, onnxruntime; print(1)'").stdout == "1\n"
    assert ssh(device, "python3 -c 'bytearray(400 << 20)'").returncode != 0
    machine.remove("a53", home=home)


def test_port_taken(image, home):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(TransientDeviceError, match=f"port {taken} of this host is taken"):
            machine.create(image, A72, "late", home=home, port=taken)
    assert not (home / "late").exists()


def test_a_machine_that_does_not_come_up(image, home, tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    for path in image.folder.iterdir():
        shutil.copy(path, folder)
    (folder / "disk.img").write_bytes(bytes(4096))  # the kernel starts, and finds no file system
    with pytest.raises(DeviceError, match="the emulated device dud does not come up") as caught:
        machine.create(dataclasses.replace(image, folder=folder), A72, "dud", home=home, limit=60)
    assert "the disk cannot be mounted" in caught.value.expected
    assert not (home / "dud").exists()


def test_a_kernel_that_says_nothing(a72, image, home, tmp_path):
    folder = tmp_path / "image"
    shutil.copytree(image.folder, folder)
    (folder / KERNEL).write_bytes(bytes(1 << 20))
    with pytest.raises(DeviceError, match="did not answer in time"):
        machine.create(dataclasses.replace(image, folder=folder), A72, "mute", home=home, limit=2)
    assert machine.find(a72.name, home)
    assert not (home / "mute").exists()


def test_names_and_cpus_that_cannot_be(image, home):
    with pytest.raises(UsageError, match="cannot name an emulated device"):
        machine.create(image, A72, "../x", home=home)
    with pytest.raises(UsageError, match=r"did you mean 'cortex-a7"):
        machine.create(image, Hardware("cortex-a7"), "x", home=home)
    with pytest.raises(DeviceError, match="cannot be emulated"):
        machine.create(image, Hardware("cortex-a72", memory_bytes=1 << 20), "x", home=home)
    assert not (home / "x").exists()
