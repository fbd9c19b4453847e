"""Learned ranges on every road: the recipe step and the Python API lead to the same INT8 in each runtime's own kernels."""

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from packager import pipeline, torch_models  # noqa: E402 - after the skip
from packager.compress import qat  # noqa: E402

NETS = Path(__file__).parents[2] / "targets" / "nets.py"
ROADS = [
    ("pytorch_lite", "linux-arm64", "torch"),
    ("executorch", "linux-arm64", "executorch"),
    ("onnxruntime", "linux-arm64", "onnxruntime"),
    ("tflite", "linux-arm64", "litert_torch"),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "qat.toml"
    path.write_text(f'precision = "int8"\nqat = "{NETS}:train"\n')
    return str(path)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A factory whose module was trained through the Python API, with a loop of the user's own."""
    folder = tmp_path_factory.mktemp("learned")
    made = torch_models.call_factory(f"{NETS}:residual")
    prepared = qat.prepare(made.module, made.examples)
    optimiser = torch.optim.SGD(prepared.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(3)
    for _ in range(6):
        optimiser.zero_grad()
        images = torch.randn(8, 3, 16, 16, generator=generator)
        torch.nn.functional.mse_loss(prepared(images), torch.full((8, 4), 0.5)).backward()
        optimiser.step()
    qat.save(qat.finish(prepared), folder / "learned.pt")
    code = folder / "learned_net.py"
    code.write_text(
        "from packager import torch_models\nfrom packager.compress import qat\n"
        f"def net():\n    made = torch_models.call_factory({f'{NETS}:residual'!r})\n"
        f"    return qat.load(made.module, made.examples, {str(folder / 'learned.pt')!r}), made.examples\n"
    )
    return f"{code}:net"


def codes(built):
    return [finding.code for finding in built.manifest.findings]


@pytest.mark.parametrize(("runtime", "target", "needs"), ROADS[2:], ids=[road[0] for road in ROADS[2:]])
def test_the_recipe_step_trains_and_builds_int8(runtime, target, needs, recipe, tmp_path):
    pytest.importorskip(needs)
    output = tmp_path / "net.edgepack"
    built = pipeline.build(f"{NETS}:clamped", target, runtime=runtime, recipe=recipe, output=output)
    assert "host-parity" not in codes(built)  # the golden check against what was trained
    assert "train_quantised" in [step.name for step in built.manifest.steps]
    assert built.manifest.calibration is None or not built.manifest.calibration.samples


@pytest.mark.parametrize(("runtime", "target", "needs"), ROADS, ids=[road[0] for road in ROADS])
def test_a_loaded_module_builds_without_calibration(runtime, target, needs, learned, tmp_path):
    pytest.importorskip(needs)
    built = pipeline.build(learned, target, runtime=runtime, recipe="int8", output=tmp_path / "net.edgepack")
    assert "host-parity" not in codes(built)
    assert not any("random" in finding.code for finding in built.manifest.findings)


def test_tflite_takes_the_learned_ranges_as_they_are(learned, tmp_path):
    pytest.importorskip("litert_torch")
    built = pipeline.build(learned, "linux-arm64", runtime="tflite", recipe="int8", output=tmp_path / "net.edgepack")
    made = torch_models.call_factory(learned)
    first = made.module.activation_post_process_0
    told = built.manifest.facts["quantization"]["image"]
    assert told["scale"] == pytest.approx(float(first.scale))
    assert told["zero_point"] == int(first.zero_point) - 128
    assert built.manifest.inputs[0].dtype == "int8"
    assert dict(built.manifest.facts["operators"]).keys() >= {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "CONCATENATION"}
    assert "DEQUANTIZE" not in built.manifest.facts["operators"], built.manifest.facts["operators"]
    assert "float-operators" not in codes(built)


def test_floats_at_the_ends_of_the_learned_model(learned, tmp_path):
    pytest.importorskip("litert_torch")
    recipe = tmp_path / "float-ends.toml"
    recipe.write_text('precision = "int8"\nio = "float"\n')
    built = pipeline.build(
        learned, "linux-arm64", runtime="tflite", recipe=str(recipe), output=tmp_path / "net.edgepack"
    )
    assert [dataclasses.asdict(spec)["dtype"] for spec in built.manifest.inputs] == ["float32"]
    assert "host-parity" not in codes(built)


@pytest.mark.parametrize(("runtime", "target", "needs"), ROADS[2:], ids=[road[0] for road in ROADS[2:]])
def test_a_transposed_convolution_and_what_has_no_integer_form(runtime, target, needs, tmp_path):
    pytest.importorskip(needs)
    entry, output = f"{NETS}:upsampled_and_trained", tmp_path / "net.edgepack"
    built = pipeline.build(entry, target, runtime=runtime, recipe="int8", output=output)
    assert "host-parity" not in codes(built)
    if runtime == "tflite":
        told = next(finding.message for finding in built.manifest.findings if finding.code == "float-operators")
        assert "GELU" in told
        assert "CONV" not in told
