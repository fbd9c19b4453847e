"""PyTorch Lite: bundles that the agent really runs."""

import json
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError, DeviceError, UsageError  # noqa: E402 - after the skip
from agent.runners.pytorch_lite import Runner  # noqa: E402
from packager import pipeline  # noqa: E402
from packager.device.device import Device  # noqa: E402

NETS = Path(__file__).parent / "nets.py"


def build(tmp_path, factory, recipe, target="linux-arm64", **more):
    if recipe == "int8" and "calibration" not in more:
        more["calibration"] = f"{NETS}:token_samples" if factory == "encoder" else f"{NETS}:samples"
    output = tmp_path / f"{factory}-{Path(recipe).stem}.edgepack"
    return pipeline.build(f"{NETS}:{factory}", target, runtime="pytorch_lite", recipe=recipe, output=output, **more)


def codes(built):
    return [finding.code for finding in built.manifest.findings]


@pytest.mark.parametrize(
    ("factory", "recipe", "target"),
    [
        ("clamped", "fp32", "linux-x86-64"),
        ("clamped", "int8", "linux-arm64"),
        ("clamped", "int8", "linux-x86-64"),
        ("recurrent", "int8-dynamic", "linux-arm64"),
        ("encoder", "int8", "linux-arm64"),
        ("encoder", "int8-dynamic", "linux-x86-64"),
        ("branch", "fp32", "android-arm64"),
    ],
)
def test_every_recipe_agrees_with_the_original_on_the_host(tmp_path, factory, recipe, target):
    built = build(tmp_path, factory, recipe, target)
    assert "host-parity" not in codes(built)
    assert "legacy-format" in codes(built)
    assert built.manifest.model == "model/model.ptl"
    engine = built.manifest.session_options.get("quantized_engine")
    assert engine == (None if recipe == "fp32" else "x86" if target == "linux-x86-64" else "qnnpack")


def test_the_agent_runs_the_int8_bundle_with_the_engine_it_was_made_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    built = build(tmp_path, "clamped", "int8")
    with Device("local") as device:
        report = device.bench(built.bundle, seconds=0.2, rounds=1)
    assert report.parity.verdict == "pass"
    assert report.runtime.placement["cpu (qnnpack)"] > 0
    assert report.runtime.name == "pytorch_lite"
    assert report.rounds[0].samples_ns


def test_two_builds_are_the_same_bytes(tmp_path):
    assert build(tmp_path, "clamped", "int8").digest == build(tmp_path, "clamped", "int8").digest


def test_dynamic_int8_tells_the_size_before_and_after(tmp_path):
    built = build(tmp_path, "recurrent", "int8-dynamic")
    text = next(finding.message for finding in built.manifest.findings if finding.code == "dynamic-int8")
    assert "1 GRU, 1 LSTM, 1 Linear" in text
    assert built.manifest.files[built.manifest.model].size < 0.4 * built.manifest.source.size_bytes


def test_a_module_without_symbolic_graph_is_quantised_layer_by_layer_and_says_so(tmp_path):
    built = build(tmp_path, "encoder", "int8")
    assert "layers-only" in codes(built)


def test_training_mode_is_left_with_a_finding(tmp_path):
    assert "train-mode" in codes(build(tmp_path, "clamped_in_training_mode", "fp32"))


def test_the_bytecode_is_the_users(tmp_path):
    built = build(tmp_path, "clamped", "fp32", target_options={"bytecode": 5})
    assert built.manifest.steps[-1].options == {"bytecode": 5}


def test_an_option_of_another_target_is_refused(tmp_path):
    with pytest.raises(UsageError, match="takes no option 'bytecod'"):
        build(tmp_path, "clamped", "fp32", target_options={"bytecod": 5})


def test_a_source_already_quantised_passes_through(tmp_path):
    built = build(tmp_path, "quantised_already", "fp32", "linux-x86-64")
    assert "already-quantised" in codes(built)


def test_dynamic_int8_without_a_layer_for_it_is_refused(tmp_path):
    script = tmp_path / "convolution.py"
    script.write_text("import torch\ndef net(): return torch.nn.Conv2d(3, 3, 1).eval(), (torch.ones(1, 3, 4, 4),)\n")
    with pytest.raises(ConvertError) as caught:
        pipeline.build(f"{script}:net", "linux-arm64", runtime="pytorch_lite", recipe="int8-dynamic")
    assert caught.value.code == "nothing-to-quantise"


def test_torchscript_and_exported_programs_are_lowered_in_float_and_refused_for_int8(tmp_path):
    from packager import torch_models

    made = torch_models.call_factory(f"{NETS}:clamped")
    script, exported = tmp_path / "net.pt", tmp_path / "net.pt2"
    torch.jit.trace(made.module, made.examples).save(str(script))
    torch.export.save(torch.export.export(made.module, made.examples), str(exported))
    output = tmp_path / "out.edgepack"
    for model, shapes in ((script, ("image=1x3x16x16",)), (exported, ())):
        settings = {"runtime": "pytorch_lite", "shapes": shapes, "output": output}
        assert pipeline.build(str(model), "linux-arm64", recipe="fp32", **settings).size_bytes > 0
        with pytest.raises(ConvertError) as caught:
            pipeline.build(str(model), "linux-arm64", recipe="int8", calibration="random", **settings)
        assert caught.value.code == "no-module"


def test_a_recipe_that_trains_gives_learned_ranges(tmp_path):
    recipe = tmp_path / "qat.toml"
    recipe.write_text(f'precision = "int8"\nqat = "{NETS}:train"\n')
    built = build(tmp_path, "clamped", str(recipe))
    assert "learned-ranges" in codes(built)
    assert "host-parity" not in codes(built)
    assert [step.name for step in built.manifest.steps][:2] == ["train_quantised", "convert_learned"]


def test_training_that_fails_says_where(tmp_path):
    recipe = tmp_path / "qat.toml"
    recipe.write_text(f'precision = "int8"\nqat = "{NETS}:train_and_fail"\n')
    with pytest.raises(UsageError, match="no data on Sundays"):
        build(tmp_path, "clamped", str(recipe))


@pytest.mark.parametrize("fault", ["not-a-model", "truncated"])
def test_the_runner_refuses_a_file_that_is_no_model(tmp_path, fault):
    path = tmp_path / "model.ptl"
    if fault == "truncated":
        with zipfile.ZipFile(build(tmp_path, "clamped", "fp32").bundle) as bundle:
            path.write_bytes(bundle.read("model/model.ptl")[:2000])
    else:
        path.write_bytes(b"not a model")
    with pytest.raises(DeviceError) as caught:
        Runner().load(str(path), {"inputs": ["x"], "outputs": ["y"]})
    assert caught.value.code == "load-failed"


def test_the_runner_refuses_an_engine_and_a_provider_that_it_lacks(tmp_path):
    with zipfile.ZipFile(build(tmp_path, "clamped", "fp32").bundle) as bundle:
        manifest = json.loads(bundle.read("manifest.json"))
        bundle.extract(manifest["model"], tmp_path)
    path, names = str(tmp_path / manifest["model"]), {"inputs": ["image"], "outputs": ["output"]}
    with pytest.raises(DeviceError, match="no INT8 engine 'neon'"):
        Runner().load(path, {**names, "session_options": {"quantized_engine": "neon"}})
    with pytest.raises(DeviceError, match="no provider 'cuda'"):
        Runner().load(path, {**names, "provider": "cuda"})
