import importlib.util
from pathlib import Path

import pytest

from agent.contract.errors import DeviceError
from agent.tensorrt import cudart


def real_cudart():
    """libcudart of NVIDIA's package nvidia-cuda-runtime, or None."""
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [path for place in places for path in Path(place).glob("*/lib/libcudart.so.1*")]
    return str(found[0]) if found else None


def test_facts_are_cuda_s_attributes(cuda):
    assert cuda.facts() == {
        "compute_capability": "8.7",
        "sms": 8,
        "integrated": True,
        "cuda_runtime": "12.6",
        "cuda_driver": "12.6",
    }
    assert cuda.memory() == (3 << 30, 8 << 30)


def test_a_missing_library_says_where_it_was_sought():
    with pytest.raises(DeviceError, match="libcudart") as caught:
        cudart.Cudart("/nowhere/libcudart.so.12")
    assert caught.value.code == "no-cuda"
    assert "/nowhere/libcudart.so.12" in caught.value.where


def test_a_failed_call_has_cuda_s_own_words(cuda, stub):
    stub.stub_fail(b"cudaMalloc", 0)
    with pytest.raises(DeviceError, match=r"cudaMalloc failed: cudaErrorMemoryAllocation \(2\)") as caught:
        cuda.malloc(16)
    assert caught.value.code == "out-of-memory"


def test_no_driver_is_no_gpu(cuda, stub):
    stub.stub_fail(b"cudaGetDeviceCount", 0)
    with pytest.raises(DeviceError, match="no usable NVIDIA GPU") as caught:
        cuda.devices()
    assert caught.value.code == "no-gpu"
    assert "video" in caught.value.fix


@pytest.mark.tensorrt
def test_the_real_runtime_has_every_symbol_and_says_that_there_is_no_driver():
    path = real_cudart()
    if path is None:
        pytest.skip("the package nvidia-cuda-runtime-cu12 is not installed")
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    cuda = cudart.Cudart(path)
    with pytest.raises(DeviceError, match="cudaGetDeviceCount failed") as caught:
        cuda.devices()
    assert caught.value.code == "no-gpu"


@pytest.mark.parametrize(("number", "text"), [(11040, "11.4"), (12060, "12.6"), (13020, "13.2")])
def test_version_text(number, text):
    assert cudart.version_text(number) == text
