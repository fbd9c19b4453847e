"""A recipe's steps inside a build: applied in order, told in the manifest, refused where they cannot be."""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.archive import BundleReader  # noqa: E402
from agent.contract.errors import ConvertError  # noqa: E402
from packager import demo_data, pipeline  # noqa: E402

NETS = Path(__file__).parent / "nets.py"


def recipe(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_prune_and_distill_in_one_build(tmp_path):
    method = "structured" if importlib.util.find_spec("torch_pruning") else "l1"
    training = f'training = {{ data = "{NETS}:batches", epochs = 1 }}'
    text = f'[[steps]]\ndo = "prune"\nmethod = "{method}"\n{training}\n'
    text += f'[[steps]]\ndo = "distill"\nteacher = "{NETS}:teacher"\n{training}\n'
    output = tmp_path / "n.edgepack"
    built = pipeline.build(f"{NETS}:made", "linux-x86-64", recipe=recipe(tmp_path, text), output=output)
    assert [step.name for step in built.manifest.steps][:2] == ["prune", "distill"]
    assert [one["step"] for one in built.reports] == ["prune", "distill"]
    with BundleReader(output) as reader:
        reader.verify()
        assert [step["do"] for step in reader.manifest.recipe["steps"]] == ["prune", "distill"]


def test_an_onnx_file_is_pruned_in_one_shot_and_told_so(tmp_path):
    model = str(demo_data.model_path())
    built = pipeline.build(model, "linux-x86-64", recipe="sparse-half", output=tmp_path / "n.edgepack")
    codes = {one.code for one in built.manifest.findings}
    assert {"mask-without-speed", "no-fine-tuning"} <= codes


def test_an_onnx_file_has_no_channels_to_remove(tmp_path):
    with pytest.raises(ConvertError, match=r"needs an nn\.Module"):
        pipeline.build(
            str(demo_data.model_path()), "linux-x86-64", recipe="pruned-half", output=tmp_path / "n.edgepack"
        )


def test_fusion_is_for_onnx_runtime_alone(tmp_path):
    with pytest.raises(ConvertError, match="fused operators are ONNX Runtime's own"):
        pipeline.build(
            str(demo_data.model_path()),
            "linux-x86-64",
            runtime="tflite",
            recipe="fused",
            output=tmp_path / "n.edgepack",
        )
