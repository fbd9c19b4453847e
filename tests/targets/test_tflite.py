"""TFLite bundles in every precision: built, and run by the agent with a passing golden check."""

import importlib.util

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from agent.contract.errors import ConvertError
from packager.device.device import Device
from packager.pipeline import build
from packager.tflite_model import model_inputs, model_outputs, operator_counts, operator_name, parse_model, type_name
from tests.tflite_models import Graph, classifier, conv, fb, needs_tflite, samples

pytestmark = needs_tflite

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.dense = nn.Linear(8 * 4 * 4, 5)

    def forward(self, image):
        x = nn.functional.max_pool2d(torch.relu(self.first(image)), 2)
        return self.dense(x.flatten(1))

def make():
    return Net().eval(), (torch.randn(1, 3, 8, 8),)
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(classifier())
    np.savez(tmp_path / "cal.npz", image=samples())
    return path


def made(model, recipe, tmp_path, **options):
    calibration = str(tmp_path / "cal.npz") if recipe in ("int8", "int16x8") else None
    built = build(
        str(model),
        "linux-x86-64",
        runtime="tflite",
        recipe=recipe,
        calibration=calibration,
        output=tmp_path / f"{recipe}.edgepack",
        **options,
    )
    with BundleReader(built.bundle) as reader:
        return built, parse_model(reader.read(built.manifest.model))


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8-dynamic", "int8", "int16x8"])
def test_precision_runs_on_this_machine_and_is_right(model, tmp_path, recipe):
    built, _ = made(model, recipe, tmp_path)
    assert [finding.code for finding in built.manifest.findings if finding.level == "warning"] == []
    with Device("local") as device:
        report = device.bench(built.bundle, runs=3, rounds=1, warmup_runs=1, warmup_seconds=0.0)
    assert report.parity.verdict == "pass"
    assert report.parity.outputs[0].cosine > (0.99999 if recipe == "fp32" else 0.99)
    assert sum(report.runtime.placement.values()) >= 8


def test_int8_has_int8_inputs_and_says_their_scale(model, tmp_path):
    built, graph = made(model, "int8", tmp_path)
    assert [spec.dtype for spec in built.manifest.inputs + built.manifest.outputs] == ["int8", "int8"]
    assert [spec.dtype for spec in model_inputs(graph)] == ["int8"]
    scale = built.manifest.facts["quantization"]["image"]["scale"]
    assert scale == pytest.approx((samples().max() - samples().min()) / 255, rel=0.02)


def test_float_inputs_on_request(model, tmp_path):
    built, graph = made(model, "int8", tmp_path, io="float")
    assert [spec.dtype for spec in model_inputs(graph)] == ["float32"]
    assert built.manifest.inputs[0].dtype == "float32"


def test_cpu_scope_leaves_softmax_in_float_and_takes_the_sum_between_convolutions(model, tmp_path):
    built, graph = made(model, "int8", tmp_path)
    assert kinds(graph, "ADD") == [("INT8", "INT8")]
    told = next(finding for finding in built.manifest.findings if finding.code == "float-operators")
    assert told.message == "computed in float: 1 SOFTMAX"


def test_order_of_calibration_samples_does_not_matter(model, tmp_path):
    first, _ = made(model, "int8", tmp_path)
    np.savez(tmp_path / "cal.npz", image=samples()[::-1])
    second, _ = made(model, "int8", tmp_path)
    assert first.manifest.facts["quantization"] == second.manifest.facts["quantization"]


def test_same_inputs_give_the_same_bytes(model, tmp_path):
    first, _ = made(model, "int8", tmp_path)
    second, _ = made(model, "int8", tmp_path)
    assert first.digest == second.digest


def test_android_bundle_brings_a_note(model, tmp_path):
    built = build(str(model), "android-arm64", recipe="fp16", output=tmp_path / "a.edgepack")
    with BundleReader(built.bundle) as reader:
        note = reader.read("INTEGRATION.md").decode()
    assert "Not run on a phone" in note
    assert "`image` | float32 | 1 x 8 x 8 x 3 | nhwc" in note


@pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is None or fb is None, reason="litert-torch is not installed"
)
@pytest.mark.timeout(600)
def test_torch_module_becomes_channels_last(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    np.savez(tmp_path / "cal.npz", image=np.moveaxis(samples(), -1, 1))
    built, graph = made(f"{tmp_path / 'net.py'}:make", "int8", tmp_path)
    assert [(spec.name, spec.shape, spec.layout) for spec in built.manifest.inputs] == [("image", [1, 8, 8, 3], "nhwc")]
    assert built.manifest.outputs[0].name == "output"
    assert operator_counts(graph)["TRANSPOSE"] == 0
    with Device("local") as device:
        report = device.bench(built.bundle, runs=3, rounds=1, profile=True)
    assert report.parity.verdict == "pass"
    assert report.profile.unread == ""
    told = [name for layer in report.profile.layers for name in layer.original]
    assert not any("/" in name for name in told)
    assert told[-1] == "output"


def kinds(graph, operator):
    """The types of values and weights of the operators of this name."""
    main = graph.subgraphs[0]
    ops = [op for op in main.operators if operator_name(graph, op) == operator]
    return [tuple(type_name(main.tensors[index]) for index in op.inputs[:2]) for op in ops]


def test_half_precision_keeps_float_inputs_and_outputs(model, tmp_path):
    built, graph = made(model, "fp16", tmp_path)
    assert [spec.dtype for spec in (*model_inputs(graph), *model_outputs(graph))] == ["float32", "float32"]
    stored = [type_name(tensor) for tensor in graph.subgraphs[0].tensors if tensor.buffer]
    assert "FLOAT16" in stored
    assert built.manifest.files[built.manifest.model].size < model.stat().st_size


def test_dynamic_int8_multiplies_matrices_and_only_stores_convolutions(model, tmp_path):
    built, graph = made(model, "int8-dynamic", tmp_path)
    assert kinds(graph, "FULLY_CONNECTED") == [("FLOAT32", "INT8")]
    assert "weights-only" in [finding.code for finding in built.manifest.findings]
    assert 0 < built.manifest.facts["int8_share"]["macs"] < 0.5  # the one dense layer
    assert [spec.dtype for spec in model_inputs(graph)] == ["float32"]


def test_dynamic_int8_leaves_convolutions_of_few_weights_as_they_are(tmp_path):
    g = Graph()
    image = g.tensor("image", [1, 4, 4, 32])
    wide = conv(g, image, "wide", [1, 4, 4, 32], [32, 1, 1, 32])
    narrow = conv(g, wide, "narrow", [1, 4, 4, 31], [31, 1, 1, 32])
    (tmp_path / "convs.tflite").write_bytes(g.raw([image], [narrow]))
    _, graph = made(tmp_path / "convs.tflite", "int8-dynamic", tmp_path)
    stored = [tuple(tensor.shape) for tensor in graph.subgraphs[0].tensors if type_name(tensor) == "INT8"]
    assert stored == [(32, 1, 1, 32)]  # 1024 values; the other has 992


def test_16_bit_activations_with_8_bit_weights(model, tmp_path):
    built, graph = made(model, "int16x8", tmp_path)
    assert built.manifest.steps[-1].options["io"] == "int16"
    assert [spec.dtype for spec in model_inputs(graph)] == ["int16"]
    assert kinds(graph, "FULLY_CONNECTED") == [("INT16", "INT8")]


def test_scope_is_a_value_of_the_profile(model, tmp_path):
    _, phone = made(model, "int8", tmp_path)
    assert kinds(phone, "SOFTMAX")[0][0] == "FLOAT32"
    built = build(str(model), "cortex-m7", calibration=str(tmp_path / "cal.npz"), output=tmp_path / "micro.edgepack")
    with BundleReader(built.bundle) as reader:
        everything = parse_model(reader.read(built.manifest.model))
    assert kinds(everything, "SOFTMAX")[0][0] == "INT8"
    assert kinds(everything, "ADD") == [("INT8", "INT8")]


@pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is None or fb is None, reason="litert-torch is not installed"
)
@pytest.mark.timeout(600)
def test_unsupported_torch_operator_is_named_with_its_layer_and_what_could_replace_it(tmp_path):
    text = NET.replace("self.dense(x.flatten(1))", "torch.linalg.det(x)")
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(ConvertError) as error:
        build(f"{tmp_path / 'net.py'}:make", "linux-x86-64", runtime="tflite", recipe="fp32", output=tmp_path / "x")
    assert error.value.code == "unsupported-operator"
    assert "operator linalg_det" in error.value.what
    assert "layer forward()" in error.value.where
    assert "leave it to the program" in error.value.fix
