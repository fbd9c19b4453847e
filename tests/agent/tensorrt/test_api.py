"""Our calls against the signatures of five real TensorRTs."""

import pytest

from agent.contract.errors import DeviceError
from agent.tensorrt import api
from tests.agent.tensorrt.standin import VERSIONS, StandIn

STRONG = [version for version in VERSIONS if not version.startswith("8")]
PROFILE = {"image": [[1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]]}


def request(**options):
    given = {"precision": "int8-fp16", "strong": True, "profiles": [PROFILE], "workspace_bytes": 1 << 28, "level": 2}
    return api.BuildRequest(**{**given, **options})


def build(trt, asked):
    trt.answers.setdefault("Builder.build_serialized_network", b"plan")
    return api.build(trt, "model.onnx", asked, api.make_logger(trt, api.Messages()))


def test_the_signatures_of_five_versions_are_here():
    assert VERSIONS == ["8.6", "10.3", "10.13", "10.16", "11.4"]


@pytest.mark.parametrize("version", STRONG)
def test_strong_networks_take_no_precision_flags(version):
    trt = StandIn(version)
    built = build(trt, request())
    assert built.plan == b"plan"
    assert built.strong
    (flags,) = trt.called("Builder.create_network")[0]
    assert flags == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert trt.called("IBuilderConfig.set_flag") == []
    assert trt.called("IBuilderConfig.builder_optimization_level") == [(2,)]
    assert trt.called("IBuilderConfig.set_memory_pool_limit") == [(trt.MemoryPoolType.WORKSPACE, 1 << 28)]
    assert trt.called("IOptimizationProfile.set_shape") == [("image", (1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))]
    assert len(trt.called("IBuilderConfig.progress_monitor")) == 1


def test_8_6_takes_flags_and_an_explicit_batch():
    trt = StandIn("8.6")
    assert not build(trt, request(strong=False)).strong
    (flags,) = trt.called("Builder.create_network")[0]
    assert flags == 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    assert trt.called("IBuilderConfig.set_flag") == [(trt.BuilderFlag.FP16,), (trt.BuilderFlag.INT8,)]
    assert trt.called("IBuilderConfig.progress_monitor") == []


def test_8_5_has_no_optimisation_level():
    trt = StandIn("8.6")
    trt.__version__ = "8.5.2"
    config = trt.IBuilderConfig
    original = config.__getattr__
    config.__getattr__ = lambda self, name: _lacks(original, self, name)
    build(trt, request(strong=False))
    assert trt.called("IBuilderConfig.builder_optimization_level") == []


def _lacks(original, thing, name):
    if name == "builder_optimization_level":
        raise AttributeError(name)
    return original(thing, name)


def test_a_strong_bundle_on_8_6_is_told():
    with pytest.raises(DeviceError, match="no strongly typed networks") as caught:
        build(StandIn("8.6"), request())
    assert caught.value.code == "runtime-version"


def test_a_bundle_with_flags_on_11_is_told():
    with pytest.raises(DeviceError, match=r"no BuilderFlag.FP16") as caught:
        build(StandIn("11.4"), request(strong=False))
    assert caught.value.code == "runtime-version"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refused_model_names_node_and_operator_where_the_version_does(version):
    answers = {
        "OnnxParser.parse_from_file": False,
        "OnnxParser.num_errors": 1,
        "ParserError.desc": "false",
        "ParserError.node_name": "conv1",
        "ParserError.node_operator": "Unique",
    }
    trt = StandIn(version, answers)
    # The bindings of 8.6 name this type as C++ does.
    trt.answers["OnnxParser.get_error"] = lambda _: trt.ParserError()
    with pytest.raises(api.ParseError) as caught:
        build(trt, request(strong=not version.startswith("8")))
    fault = caught.value.faults[0]
    assert fault["desc"] == "false"
    if not version.startswith("8"):
        assert (fault["node_name"], fault["node_operator"]) == ("conv1", "Unique")


@pytest.mark.parametrize("version", VERSIONS)
def test_no_engine_and_a_bad_profile_are_told_apart(version):
    strong = not version.startswith("8")
    trt = StandIn(version, {"Builder.build_serialized_network": lambda *_: None})
    with pytest.raises(DeviceError, match="built no engine") as caught:
        build(trt, request(strong=strong))
    assert caught.value.code == "build-failed"
    trt = StandIn(version, {"IBuilderConfig.add_optimization_profile": -1})
    with pytest.raises(DeviceError, match="refuses the optimisation profile") as caught:
        build(trt, request(strong=strong))
    assert caught.value.code == "bad-profile"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_foreign_engine_is_stale(version):
    trt = StandIn(version, {"Runtime.deserialize_cuda_engine": lambda _: None})
    with pytest.raises(DeviceError, match="does not deserialise") as caught:
        api.open_engine(trt, b"plan", api.make_logger(trt, api.Messages()))
    assert caught.value.code == "engine-stale"


def test_the_stand_in_refuses_what_the_real_one_does_not_have():
    trt = StandIn("11.4")
    with pytest.raises(AttributeError, match="max_workspace_size"):
        _ = trt.IBuilderConfig().max_workspace_size
    with pytest.raises(TypeError, match="set_flag"):
        trt.IBuilderConfig().set_flag()
    with pytest.raises(AttributeError):
        _ = trt.BuilderFlag.INT8


def test_messages_keep_errors_only():
    messages = api.Messages()
    messages(1, "tactic needs memory")
    messages(3, "chatter")
    assert messages.text() == "tactic needs memory"
