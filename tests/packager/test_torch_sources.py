"""PyTorch models in every form: factories, exported programs, TorchScript. Without torch these tests are skipped."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import packager
from agent.contract.errors import ConvertError, UsageError
from packager import pipeline
from tests.packager import models
from tests.packager.models import old_runtime
from tests.packager.torch_nets import NET

torch = pytest.importorskip("torch", reason="the torch extra is not installed: pip install 'edgepack[torch]'")
pytestmark = pytest.mark.torch


@pytest.fixture
def net(place):
    (place / "net.py").write_text(NET)
    (place / "helper.py").write_text("import net\n\ndef make():\n    return net.tensor()\n")
    yield place / "net.py"
    for name in ("net", "helper"):
        sys.modules.pop(name, None)


def agrees(made):
    """The packed model computes what its golden outputs say."""
    inputs, outputs = made.golden("inputs"), made.golden("outputs")
    for index in range(made.manifest["golden"]["samples"]):
        found = models.run_onnx(made.model_path, {name: array[index] for name, array in inputs.items()})
        for name, array in outputs.items():
            np.testing.assert_allclose(found[name], array[index], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("factory", ["tensor", "tuple_", "noisy", "late"])
def test_factory_with_example_inputs(packed, net, factory, capsys):
    made = packed(f"{net}:{factory}", recipe="fp32")
    assert made.manifest["golden"]["made_from"] == "example"
    assert [one["name"] for one in made.manifest["inputs"]] == ["image"]
    assert [one["name"] for one in made.manifest["outputs"]] == ["output"]
    assert made.manifest["source"]["name"] == f"net.py:{factory}"
    assert made.manifest["name"] == "net"
    agrees(made)
    assert capsys.readouterr().out == ""


def test_golden_outputs_are_the_modules_own(packed, net):
    made = packed(f"{net}:tensor", recipe="fp32")
    sys.path.insert(0, str(net.parent))
    import net as module

    sys.path.remove(str(net.parent))
    torch.manual_seed(0)
    original, example = module.tensor()
    np.testing.assert_array_equal(made.golden("inputs")["image"][0], example.numpy())
    with torch.no_grad():
        np.testing.assert_array_equal(made.golden("outputs")["output"][0], original(example).numpy())


def test_factory_with_a_dict_of_inputs_and_many_outputs(packed, net):
    made = packed(f"{net}:dict_", recipe="fp32")
    assert [(one["name"], one["shape"]) for one in made.manifest["inputs"]] == [("left", [1, 8]), ("right", [1, 4])]
    assert [one["name"] for one in made.manifest["outputs"]] == ["output_0", "output_1", "output_2"]
    agrees(made)
    named = packed(f"{net}:dict_", recipe="fp32", output_names=("a", "b", "c"))
    assert [one.name for one in named.model.graph.output] == ["a", "b", "c"]
    with pytest.raises(UsageError, match="2 output names for 3 outputs"):
        packager.build(f"{net}:dict_", "linux-x86-64", recipe="fp32", output_names=("a", "b"))


def test_module_itself_may_be_named(packed, net):
    agrees(packed(f"{net}:model", recipe="fp32", shapes=("image=1x1x8x8",)))


def test_factory_of_a_module_in_the_current_folder(packed, net):
    agrees(packed("net:tensor", recipe="fp32"))


def test_factory_without_examples_takes_shape_and_says_so_without(packed, net):
    with pytest.raises(UsageError) as caught:
        packager.build(f"{net}:plain", "linux-x86-64", recipe="fp32")
    assert "--shape image=1x3x224x224" in str(caught.value)
    made = packed(f"{net}:plain", recipe="fp32", shapes=("image=1x1x8x8",))
    assert "train-mode" in made.codes()
    agrees(made)
    with pytest.raises(UsageError, match="unknown input 'imgae'"):
        packager.build(f"{net}:plain", "linux-x86-64", recipe="fp32", shapes=("imgae=1x1x8x8",))


@pytest.mark.parametrize("factory", ["plain", "tensor"])
def test_named_dimension_stays_free(packed, net, factory):
    made = packed(f"{net}:{factory}", recipe="fp32", shapes=("image=batchx1x8x8",))
    assert made.manifest["inputs"][0]["shape"] == ["batch", 1, 8, 8]
    assert made.manifest["outputs"][0]["shape"] == ["batch", 10]
    agrees(made)
    several = models.run_onnx(made.model_path, {"image": models.images(5)})["output"]
    one = models.run_onnx(made.model_path, {"image": models.images(5)[3:4]})["output"]
    np.testing.assert_allclose(several[3:4], one, rtol=1e-4, atol=1e-6)


def test_shape_overrides_the_examples(packed, net):
    made = packed(f"{net}:tensor", recipe="fp32", shapes=("image=3x1x12x12",))
    assert made.manifest["inputs"][0]["shape"] == [3, 1, 12, 12]
    agrees(made)
    with pytest.raises(UsageError, match="does not fit the model"):
        packager.build(f"{net}:tensor", "linux-x86-64", recipe="fp32", shapes=("image=1x8x8",))


def test_integer_inputs_keep_their_type(packed, net):
    made = packed(f"{net}:tokens", recipe="fp32", shapes=("ids=batchx5",))
    assert made.manifest["inputs"] == [{"name": "ids", "dtype": "int64", "shape": ["batch", 5], "layout": ""}]
    agrees(made)


def test_int8_from_a_factory(packed, net, npz):
    made = packed(f"{net}:tensor", "raspberry-pi-5", recipe="int8", calibration=str(npz))
    assert [step["name"] for step in made.manifest["steps"]] == ["onnx_from_torch", "quantize_static"]
    assert made.manifest["source"]["format"] == "torch"
    assert "DequantizeLinear" in made.operators()


def test_old_runtime_gets_a_model_it_loads(packed, net):
    made = packed(f"{net}:tensor", "jetson-xavier-nx", runtime="onnxruntime", recipe="fp32")
    assert made.opset() <= 21
    agrees(made)


def test_runtime_older_than_the_exporter_is_reached_by_the_other_exporter(packed, net, place):
    made = packed(f"{net}:gelu", old_runtime(place, "1.12.1"), recipe="fp32")
    assert made.opset() == 17
    assert "torchscript-exporter" in made.codes()
    agrees(made)


def test_module_that_torch_export_refuses_goes_through_torchscript(packed, net):
    made = packed(f"{net}:branches", recipe="fp32")
    assert "torchscript-exporter" in made.codes()
    assert str(net.parent) not in json.dumps(made.manifest)
    agrees(made)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("raises", "weights.pt is not here"),
        ("leaves", "SystemExit"),
        ("number", "returned int"),
        ("numbers", "example inputs are int, int"),
        ("misnamed", "left, rihgt"),
        ("misfit", "does not run"),
        ("empty", "nothing fits into it"),
        ("text", "returns str"),
        ("Tensor", "unknown function"),
    ],
)
def test_factory_that_is_wrong_is_told_as_such(net, place, factory, told):
    with pytest.raises((UsageError, ConvertError), match=told):
        packager.build(f"{net}:{factory}", "linux-x86-64", recipe="fp32")
    assert not list(place.glob("*.edgepack"))


def test_factory_that_raises_is_told_with_its_line(net):
    with pytest.raises(UsageError) as caught:
        packager.build(f"{net}:raises", "linux-x86-64", recipe="fp32")
    line = next(n for n, text in enumerate(NET.splitlines(), 1) if "weights.pt" in text)
    assert f"net.py:{line}" in caught.value.where


def test_file_that_does_not_import_is_told_with_its_line(place):
    (place / "bad.py").write_text("import torch\n\nimport no_such_thing\n")
    with pytest.raises(UsageError, match="no_such_thing") as caught:
        packager.build(f"{place / 'bad.py'}:model", "linux-x86-64", recipe="fp32")
    assert caught.value.where.endswith("bad.py:3")


_BUILD = "import json, sys, packager; packager.build(**json.loads(sys.argv[1]))"


@pytest.mark.parametrize("factory", ["plain", "branches"])
def test_same_factory_same_bytes(net, place, factory):
    options = {"recipe": "fp32", "output": "o.edgepack"} | (
        {"shapes": ["image=batchx1x8x8"]} if factory == "plain" else {}
    )
    packager.build(f"{net}:{factory}", "raspberry-pi-5", **options)
    folder = place / "far" / "away"
    folder.mkdir(parents=True)
    (folder / "net.py").write_text(NET)
    os.utime(folder / "net.py", (1e9, 1e9))
    arguments = {"model": f"net.py:{factory}", "target": "raspberry-pi-5", **options}
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    argv = [sys.executable, "-c", _BUILD, json.dumps(arguments)]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (folder / "o.edgepack").read_bytes() == (place / "o.edgepack").read_bytes()


def exported(path, module, example, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, example, **options), str(path))
    return path


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.last = torch.nn.Linear(4, 3)

    def forward(self, input, scale):  # noqa: A002 - users name it so
        return self.last(input) * scale, input + 1


def test_exported_program(packed, place):
    example = (torch.randn(1, 4), torch.ones(1))
    made = packed(exported(place / "small.pt2", Small().eval(), example), recipe="fp32")
    assert [one["name"] for one in made.manifest["inputs"]] == ["input", "scale"]
    assert [one["name"] for one in made.manifest["outputs"]] == ["output_0", "output_1"]
    assert made.manifest["golden"]["made_from"] == "example"
    agrees(made)
    with torch.no_grad():
        np.testing.assert_array_equal(made.golden("outputs")["output_0"][0], Small()(*example)[0].numpy())


def test_exported_program_with_a_free_dimension(packed, place):
    shapes = {"input": {0: torch.export.Dim("n", min=1, max=64)}, "scale": {}}
    path = exported(place / "small.pt2", Small().eval(), (torch.randn(2, 4), torch.ones(1)), dynamic_shapes=shapes)
    made = packed(path, recipe="fp32")
    assert isinstance(made.manifest["inputs"][0]["shape"][0], str)
    feed = {"input": models.weights(7, 4), "scale": np.ones(1, np.float32)}
    assert models.run_onnx(made.model_path, feed)["output_0"].shape == (7, 3)
    fixed = packed(path, recipe="fp32", shapes=("input=3x4",))
    assert fixed.manifest["inputs"][0]["shape"] == [3, 4]
    agrees(fixed)


def scripted(path, module, *, trace=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.script(module) if trace is None else torch.jit.trace(module, trace)
        torch.jit.save(made, str(path))
    return path


def test_torchscript(packed, place):
    path = scripted(place / "small.pt", Small().eval())
    made = packed(path, recipe="fp32", shapes=("input=2x4", "scale=1"))
    assert [one["name"] for one in made.manifest["inputs"]] == ["input", "scale"]
    assert made.manifest["inputs"][0]["shape"] == [2, 4]
    agrees(made)
    free = packed(path, recipe="fp32", shapes=("input=nx4", "scale=1"))
    assert free.manifest["inputs"][0]["shape"] == ["n", 4]
    with pytest.raises(UsageError) as caught:
        packager.build(str(path), "linux-x86-64", recipe="fp32")
    assert "--shape input=" in str(caught.value)
    with pytest.raises(UsageError, match="does not run on"):
        packager.build(str(path), "linux-x86-64", recipe="fp32", shapes=("input=2x5", "scale=1"))


def test_torchscript_of_tokens_takes_integers(packed, place, net):
    sys.path.insert(0, str(place))
    import net as module

    sys.path.remove(str(place))
    path = scripted(place / "tokens.pt", module.Tokens().eval(), trace=(torch.tensor([[1, 2, 3]]),))
    made = packed(path, recipe="fp32", shapes=("ids=1x3",))
    assert made.manifest["inputs"][0]["dtype"] == "int64"
    agrees(made)


def test_checkpoint_instead_of_torchscript(place):
    torch.save(Small().state_dict(), str(place / "weights.pt"))
    with pytest.raises(UsageError, match="checkpoint") as caught:
        packager.build(str(place / "weights.pt"), "linux-x86-64", recipe="fp32")
    assert "file.py:factory" in caught.value.fix


@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
@pytest.mark.parametrize("content", [b"", b"this is no model\n", b"PK\x03\x04 cut off"])
def test_file_that_is_no_pytorch_model(place, name, content):
    (place / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        packager.build(str(place / name), "linux-x86-64", recipe="fp32", shapes=("x=1x4",))
    assert caught.value.code in ("not-pt2", "not-torchscript")


def test_quantised_module_is_recognised(place, net):
    (place / "quant.py").write_text(
        "import torch, warnings\nfrom torch import nn\n\n\ndef make():\n"
        "    with warnings.catch_warnings():\n        warnings.simplefilter('ignore')\n"
        "        from torch.ao.quantization import quantize_dynamic\n"
        "        module = quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear}, torch.qint8)\n"
        "    return module.eval(), torch.randn(1, 4)\n"
    )
    source = pipeline.find_source("quant.py:make")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert source.open("quant.py:make", {}).quantized
    assert not source.open(f"{net}:tensor", {}).quantized


def test_half_precision_module(packed, net):
    made = packed(f"{net}:half", "raspberry-pi-5", recipe="fp32")
    assert made.manifest["inputs"][0]["dtype"] == "float16"


def test_folder_of_the_sources_is_not_in_the_bundle(packed, net):
    made = packed(f"{net}:tensor", recipe="fp32")
    everything = b"".join(path.read_bytes() for path in Path(made.folder).rglob("*") if path.is_file())
    assert str(net.parent).encode() not in everything
    onnx.checker.check_model(made.model)
