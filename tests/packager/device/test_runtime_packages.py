"""Which devices a runtime's packages are made for."""

import pytest

from agent.contract.errors import DeviceError
from agent.contract.facts import DeviceFacts
from packager.device.provision import _requests
from packager.device.runtime_packages import PACKAGES, check_device


def facts(machine, cpu_model, features):
    empty = dict.fromkeys(("hostname", "model", "kernel", "os", "python", "python_path", "libc", "root"), "")
    return DeviceFacts(
        **empty,
        machine=machine,
        numpy=None,
        runtimes=[],
        cpu_model=cpu_model,
        cpu_cores=4,
        cpu_features=features,
        memory_total=None,
        memory_available=None,
        disk_free=None,
        clock_unix=0.0,
    )


A72, A76 = facts("aarch64", "Cortex-A72", ["neon"]), facts("aarch64", "Cortex-A76", ["dotprod", "fp16", "neon"])


def test_torch_for_arm_is_not_brought_to_a_core_that_it_dies_on():
    with pytest.raises(DeviceError, match=r"illegal instruction .* and this is a Cortex-A72") as caught:
        check_device("executorch", A72)
    assert caught.value.code == "by-hand"
    assert "--runtime onnxruntime" in caught.value.fix


def test_a_newer_core_takes_it():
    check_device("executorch", A76)


def test_the_other_runtimes_go_everywhere():
    for name in ("onnxruntime", "tflite"):
        for device in (A72, A76, facts("x86_64", "", [])):
            check_device(name, device)


def test_what_pip_is_asked_for():
    assert _requests(["onnxruntime", "tflite"]) == [(["numpy", "onnxruntime", "ai-edge-litert"], True)]
    both = _requests(["executorch", "onnxruntime"])
    assert both == [(["numpy", "onnxruntime"], True), (list(PACKAGES["executorch"]), False)]
