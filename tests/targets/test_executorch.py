"""ExecuTorch: bundles that the agent really runs, and what of them XNNPACK computes."""

import contextlib
import dataclasses
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("executorch", reason="needs the executorch extra")
pytestmark = [pytest.mark.executorch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError, DeviceError, IntegrityError  # noqa: E402 - after the skip
from agent.contract.pte import read_pte  # noqa: E402
from agent.runners.executorch import Runner  # noqa: E402
from packager import pipeline  # noqa: E402
from packager.device.device import Device  # noqa: E402

NETS = Path(__file__).parent / "nets.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("executorch")


def build(folder, factory, recipe):
    calibration = f"{NETS}:samples" if recipe == "int8" else None
    output = folder / f"{factory}-{Path(recipe).stem}.edgepack"
    settings = {"runtime": "executorch", "recipe": recipe, "calibration": calibration, "output": output}
    return pipeline.build(f"{NETS}:{factory}", "linux-arm64", **settings)


@pytest.fixture(scope="module")
def int8(folder):
    return build(folder, "clamped", "int8")


@pytest.fixture(scope="module")
def model(int8, folder):
    with zipfile.ZipFile(int8.bundle) as bundle:
        bundle.extract("model/model.pte", folder)
    return folder / "model" / "model.pte"


def codes(built):
    return [finding.code for finding in built.manifest.findings]


def test_float_agrees_with_the_original_and_says_what_xnnpack_takes(folder):
    built = build(folder, "clamped", "fp32")
    text = next(finding.message for finding in built.manifest.findings if finding.code == "delegation")
    assert "aten_mean" in text
    assert built.manifest.steps[-1].name == "save_pte"
    assert built.manifest.steps[-1].options == {"schema_version": 0}
    assert built.manifest.runtime.min_version.count(".") == 1


def test_the_agent_runs_int8_on_xnnpack(int8, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Device("local") as device:
        report = device.bench(int8.bundle, seconds=0.2, rounds=1)
    assert report.parity.verdict == "pass"
    assert report.runtime.placement["XnnpackBackend"] >= 1
    assert report.runtime.placement["portable"] >= 1


def test_dynamic_int8_of_linear_layers(folder):
    built = build(folder, "encoder", "int8-dynamic")
    assert "host-parity" not in codes(built)


def test_learned_ranges_need_no_calibration(folder):
    recipe = folder / "qat.toml"
    recipe.write_text(f'precision = "int8"\nqat = "{NETS}:train"\n')
    built = pipeline.build(
        f"{NETS}:clamped", "linux-arm64", runtime="executorch", recipe=str(recipe), output=folder / "qat.edgepack"
    )
    assert "learned-ranges" in codes(built)
    assert "host-parity" not in codes(built)


@pytest.mark.parametrize("scope", ["", "all"])
def test_sums_that_int8_ruins_stay_float_unless_the_recipe_insists(folder, scope):
    from packager import executorch_lower, torch_models
    from packager.compress.quantize import executorch_static
    from packager.recipe import NAMED
    from packager.torch_compare import outputs_of, worst_cosine
    from packager.torch_program import Program

    made = torch_models.call_factory(f"{NETS}:outlier")
    program = Program(made.module, made.examples, (), "torch")
    samples = torch_models.import_named(str(NETS), "outlier_samples")()["x"]
    feeds = [(torch.from_numpy(one[None]),) for one in samples]
    recipe = dataclasses.replace(NAMED["int8"], scope=scope)
    floats = executorch_static.Floats(executorch_lower.export(program), program, feeds)
    _, chosen, told = executorch_static.draft(floats, recipe)
    found = executorch_static.quantise(floats, chosen)
    expected, outputs = ([outputs_of(net, feed) for feed in feeds] for net in (made.module, found.module()))
    assert [finding.code for finding in told] == ([] if scope else ["compute-only"])
    assert (worst_cosine(expected, outputs) > 0.98) == (not scope)


def test_control_flow_is_refused_with_the_line(folder, capfd):
    with pytest.raises(ConvertError) as caught:
        build(folder, "branch", "fp32")
    assert caught.value.code == "not-exportable"
    assert "nets.py:" in caught.value.where
    assert "def forward(self" not in "".join(capfd.readouterr())  # torch.export's half a graph


def test_the_file_tells_what_it_calls(model):
    facts = read_pte(model.read_bytes())
    assert facts.delegated["XnnpackBackend"] >= 1
    assert facts.portable == {"aten::mean": 1}


@pytest.mark.parametrize("cut", [0, 7, 200])
def test_a_truncated_file_is_refused(model, cut):
    with pytest.raises(IntegrityError):
        read_pte(model.read_bytes()[:cut])


def test_every_flipped_byte_of_the_head_is_refused_or_read(model):
    raw = model.read_bytes()
    for place in range(256):
        broken = raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :]
        with contextlib.suppress(IntegrityError):
            assert read_pte(broken).schema_version is not None


def test_the_runner_refuses_a_provider_that_the_file_does_not_call(model):
    names = {"inputs": ["image"], "outputs": ["output"]}
    with pytest.raises(DeviceError) as caught:
        Runner().load(str(model), {**names, "provider": "qnn"})
    assert caught.value.code == "provider-not-used"


def test_the_runner_says_what_xnnpack_was_asked_for(model):
    runner = Runner()
    runner.load(str(model), {"inputs": ["image"], "outputs": ["output"], "provider": "xnnpack", "threads": 1})
    assert runner.provider() == "XnnpackBackend"
    runner.close()


def test_the_runner_does_not_wait_for_the_exporter_and_leaves_it_importable(model):
    code = f"""
import sys
from agent.runners.executorch import Runner
runner = Runner()
runner.load({str(model)!r}, {{"inputs": ["image"], "outputs": ["output"]}})
import torch
(found,) = runner.run({{"image": torch.zeros(1, 3, 16, 16).numpy()}})
seen = [name for name in ("torch._dynamo", "torchao", "executorch.exir") if name in sys.modules]
from executorch.exir import to_edge_transform_and_lower
print(found.shape, seen)
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "(1, 5) []"


def test_a_program_that_its_own_runtime_refuses_stops_the_build(int8, model, tmp_path):
    from packager import registry
    from packager.artifact import Artifact

    broken = tmp_path / "model.pte"
    raw = model.read_bytes()
    broken.write_bytes(raw.replace(b"XnnpackBackend", b"XnnpackBackent"))
    artifact = Artifact("pte", broken, "", tuple(int8.manifest.inputs), tuple(int8.manifest.outputs))
    with pytest.raises(ConvertError) as caught:
        list(registry.target("executorch").run(artifact, []))
    assert caught.value.code == "not-loadable"
