"""A recipe's steps inside a build: applied in order, told in the manifest, refused where they cannot be."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.archive import BundleReader  # noqa: E402
from agent.contract.errors import BudgetError, ConvertError, UsageError  # noqa: E402
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


def test_the_budget_holds_against_the_source_before_its_steps(tmp_path):
    pictures = np.random.default_rng(0).standard_normal((64, 1, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "eval.npz", input=pictures)
    text = '[[steps]]\ndo = "prune"\nmethod = "l1"\nsparsity = 0.97\n'
    options = {"recipe": recipe(tmp_path, text), "output": tmp_path / "n.edgepack", "eval": str(tmp_path / "eval.npz")}
    options |= {"metric": "cosine", "max_drop": 0.01}
    with pytest.raises(BudgetError, match=r"falls from the source's 1\.0000 to") as caught:
        pipeline.build(f"{NETS}:made", "linux-x86-64", **options)
    assert "prune" in caught.value.where
    built = pipeline.build(f"{NETS}:made", "linux-x86-64", allow_drop=True, **options)
    told = built.manifest.facts["accuracy"]
    assert (told["source"], told["original"], told["bundle"]) == pytest.approx((1.0, 1.0, 1.0))
    assert "over-budget" in {one.code for one in built.manifest.findings}


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ('teacher = "NETS:teachr"', "did you mean 'teacher'"),
        ('teacher = "NETS:wrong_teacher"', "teacher's output is"),
        ('teacher = "NETS:teacher"\nfeatures = { "00" = "0" }', "no layer '00'"),
        ('teacher = "NETS:teacher"\nTRAINING = { data = "none.npz" }', "no such training data"),
        ('teacher = "NETS:teacher"\nTRAINING = { data = "NETS:batches", loss = "crossentropy" }', "did you mean"),
    ],
)
def test_a_fault_in_the_last_step_is_told_before_the_first_has_trained(tmp_path, second, told):
    training = f'training = {{ data = "{NETS}:batches", epochs = 1 }}'
    last = second.replace("NETS", str(NETS)).replace("TRAINING", "training")
    last += "" if "TRAINING" in second else f"\n{training}"
    text = f'[[steps]]\ndo = "prune"\nmethod = "l1"\n{training}\n[[steps]]\ndo = "distill"\n{last}\n'
    said = []
    with pytest.raises(UsageError, match=told):
        pipeline.build(
            f"{NETS}:made",
            "linux-x86-64",
            recipe=recipe(tmp_path, text),
            output=tmp_path / "n.edgepack",
            progress=said.append,
        )
    assert not [one for one in said if "epoch" in one or "pruning" in one]


def test_a_build_goes_on_from_its_checkpoint(tmp_path):
    text = f'[[steps]]\ndo = "distill"\nteacher = "{NETS}:teacher"\n'
    text += f'training = {{ data = "{NETS}:batches", epochs = 2, checkpoint = "{tmp_path / "c.pt"}" }}\n'
    said = []
    for name in ("a", "b"):
        options = {"recipe": recipe(tmp_path, text), "output": tmp_path / name, "progress": said.append}
        pipeline.build(f"{NETS}:made", "linux-x86-64", **options)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sum(one.startswith("distilling: epoch") for one in said) == 2
    assert sum(one.startswith("going on from the checkpoint") for one in said) == 1


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


def test_two_folders_give_the_same_bundle_and_no_path_of_either(tmp_path):
    text = '[[steps]]\ndo = "prune"\nmethod = "l1"\n'
    text += 'training = {{ data = "{0}/nets.py:batches", epochs = 1 }}\n'
    text += 'budget = {{ eval = "{0}/eval.npz", max_drop = 100.0, metric = "{0}/m.py:score" }}\n'
    bundles = []
    for name in ("one", "other"):
        place = tmp_path / name
        place.mkdir()
        (place / "nets.py").write_bytes(NETS.read_bytes())
        (place / "m.py").write_text("def score(outputs, labels):\n    return 0.5\n")
        pictures = np.random.default_rng(0).standard_normal((8, 1, 12, 12)).astype(np.float32)
        labels = np.arange(8) % 4
        named = pipeline.find_source(f"{NETS}:made").open(f"{NETS}:made", {"shapes": {}, "output_names": ()}).inputs
        np.savez(place / "eval.npz", labels=labels, **{named[0].name: pictures})
        (place / "mine.toml").write_text(text.format(place))
        options = {"recipe": str(place / "mine.toml"), "output": place / "n.edgepack"}
        bundles.append(pipeline.build(f"{place / 'nets.py'}:made", "linux-x86-64", **options).bundle)
    assert bundles[0].read_bytes() == bundles[1].read_bytes()
    with BundleReader(bundles[0]) as reader:
        (step,) = reader.manifest.recipe["steps"]
    assert step["training"]["data"] == "nets.py:batches"
    assert (step["budget"]["eval"], step["budget"]["metric"]) == ("eval.npz", "m.py:score")
