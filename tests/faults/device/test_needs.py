"""Bundles that ask for what the device's processor or runtime does not have: told before anything of them runs."""

from __future__ import annotations

import dataclasses
import platform

import pytest

from agent.contract.errors import DeviceError
from packager import build
from packager.device.device import Device
from tests.device.road import MODEL, remade

# Of the other family, so that no machine on which this runs has it.
FOREIGN = "avx512f" if platform.machine() == "aarch64" else "sve2"


def test_missing_cpu_feature(board, bundle, refused, edgepack, tmp_path):
    def need(manifest):
        return dataclasses.replace(manifest, runtime=dataclasses.replace(manifest.runtime, cpu_features=[FOREIGN]))

    device = board("kitchen")
    wanting = remade(bundle, tmp_path / "b.edgepack", need)
    for command in ("push", "bench"):
        said = refused(4, device, command, wanting, "kitchen")
        assert f"the bundle needs CPU features that this device lacks: {FOREIGN}" in said
        assert "edgepack build MODEL --target PROFILE" in said
    assert edgepack.json("devices", "list-bundles", "kitchen") == []
    with Device("kitchen") as connected, pytest.raises(DeviceError) as caught:
        connected.push(wanting)
    assert caught.value.code == "cpu-features"


def test_bundle_for_vnni_on_a_processor_without(board, refused, tmp_path, edgepack):
    facts = edgepack.json("devices", "doctor", "local")["facts"]
    if platform.machine() != "x86_64" or "vnni" in facts["cpu_features"]:
        pytest.skip("needs an x86-64 processor without VNNI")
    target = tmp_path / "vnni.edgepack"
    build(str(MODEL), "linux-x86-64-vnni", recipe="int8", calibration="random", output=target, check=False)
    said = refused(4, board("kitchen"), "bench", target, "kitchen")
    assert "the bundle needs CPU features that this device lacks: " in said
    assert "vnni" in said


def test_provider_that_is_not_there(board, bundle, refused):
    device = board("kitchen")
    said = refused(4, device, "bench", bundle, "kitchen", "--provider", "cuda")
    assert "this onnxruntime has no provider 'cuda'" in said
    assert "CPUExecutionProvider" in said


def test_provider_that_nobody_knows(board, bundle, refused):
    said = refused(4, board("kitchen"), "bench", bundle, "kitchen", "--provider", "CPUExecutionProvide")
    assert "did you mean 'CPUExecutionProvider'?" in said
