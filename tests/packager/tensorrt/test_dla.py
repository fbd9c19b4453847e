"""DLA: what a profile may ask for, and that the builder's calls are those of five real TensorRTs. Not run on hardware."""

import dataclasses

import pytest

from agent.contract.errors import ContractError, ConvertError
from agent.tensorrt import api, trtexec
from packager.profile import load_profile
from packager.recipe import load_recipe
from packager.tensorrt import dla, versions
from tests.agent.tensorrt.standin import VERSIONS, StandIn


def profile(name="jetson-orin", core=1):
    given = load_profile(name)
    entry = given.runtimes["tensorrt"]
    entry = dataclasses.replace(entry, options={**entry.options, "dla": core})
    return dataclasses.replace(given, runtimes={**given.runtimes, "tensorrt": entry})


def test_a_core_means_types_by_flags():
    limits = dla.limits_for(profile(), versions.limits("10.3.0"))
    assert (dla.core_of(profile()), limits.strong) == (1, False)
    assert dla.core_of(load_profile("jetson-orin")) is None


@pytest.mark.parametrize(
    ("name", "core"), [("jetson-orin", 2), ("jetson-orin", -1), ("jetson-orin-nano", 0), ("jetson-orin", True)]
)
def test_a_core_that_the_board_lacks(name, core):
    with pytest.raises(ContractError) as caught:
        dla.core_of(profile(name, core))
    assert caught.value.code == "no-dla"


@pytest.mark.parametrize("version", ["10.8.0", "11.0.0"])
def test_a_tensorrt_after_the_last_with_dla(version):
    assert dla.limits_for(profile(), versions.limits("10.7.0")).strong is False
    with pytest.raises(ContractError, match="does not build for DLA"):
        dla.limits_for(profile(), versions.limits(version))


@pytest.mark.parametrize(("recipe", "why"), [("fp32", "FP16 and INT8"), ("int8", "no Q/DQ"), ("int8-fp16", "no Q/DQ")])
def test_a_recipe_that_it_cannot_compute(recipe, why):
    with pytest.raises(ConvertError, match=why) as caught:
        dla.check(
            profile(),
            load_recipe(recipe)
            if recipe != "int8-fp16"
            else dataclasses.replace(load_recipe("int8"), precision=recipe),
        )
    assert "fp16" in caught.value.fix
    dla.check(profile(), load_recipe("fp16"))


@pytest.mark.parametrize("version", [one for one in VERSIONS if not one.startswith("11")])
def test_the_calls_are_those_of_the_real_bindings(version):
    trt = StandIn(version, {"Builder.build_serialized_network": b"plan"})
    asked = api.BuildRequest(precision="fp16", strong=False, dla=1)
    api.build(trt, "model.onnx", asked, api.make_logger(trt, api.Messages()))
    assert trt.called("IBuilderConfig.DLA_core") == [(1,)]
    assert trt.called("IBuilderConfig.default_device_type") == [(trt.DeviceType.DLA,)]
    assert (trt.BuilderFlag.GPU_FALLBACK,) in trt.called("IBuilderConfig.set_flag")
    assert (trt.BuilderFlag.FP16,) in trt.called("IBuilderConfig.set_flag")
    trt.answers["Runtime.deserialize_cuda_engine"] = lambda _: trt.ICudaEngine()
    api.open_engine(trt, b"plan", api.make_logger(trt, api.Messages()), 1)
    assert trt.called("Runtime.DLA_core") == [(1,)]


def test_trtexec_is_told_the_core_and_the_fallback():
    asked = api.BuildRequest(precision="fp16", strong=False, dla=0)
    command = trtexec.build_arguments("trtexec", "m.onnx", asked, "m.plan", "10.3.0")
    assert {"--useDLACore=0", "--allowGPUFallback", "--fp16"} <= set(command)
