"""A model becomes a bundle: what is in it, and that it is right."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from importlib.resources import files

import numpy as np
import onnx
import pytest

import packager
from agent.contract.archive import BundleReader
from agent.contract.errors import ConvertError, UsageError
from packager import onnx_model, pipeline
from tests.packager import models
from tests.packager.models import old_runtime

RECIPES = ("fp32", "fp16", "int8-dynamic", "int8")


def cosine(left, right):
    left, right = left.ravel().astype(float), right.ravel().astype(float)
    return left @ right / np.sqrt((left @ left) * (right @ right))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_gives_a_bundle_that_computes_the_same(packed, classifier, npz, recipe):
    made = packed(classifier, recipe=recipe, calibration=str(npz))
    outputs = made.golden("outputs")["scores"]
    for index, image in enumerate(made.golden("inputs")["image"]):
        found = models.run_onnx(made.model_path, {"image": image})["scores"]
        assert found.dtype == np.float32
        assert cosine(found, outputs[index]) > (0.99 if recipe.startswith("int8") else 0.99999)
    with BundleReader(made.built.bundle) as reader:
        reader.verify()


@pytest.mark.parametrize("recipe", RECIPES)
def test_golden_outputs_are_the_originals_own(packed, classifier, npz, recipe):
    made = packed(classifier, recipe=recipe, calibration=str(npz))
    data = np.load(npz)["image"]
    inputs, outputs = made.golden("inputs")["image"], made.golden("outputs")["scores"]
    assert made.manifest["golden"]["made_from"] == "calibration"
    assert made.manifest["golden"]["samples"] == len(inputs) == len(outputs) == 4
    for image, scores in zip(inputs, outputs, strict=True):
        assert any(np.array_equal(image[0], sample) for sample in data)
        np.testing.assert_array_equal(models.run_onnx(classifier, {"image": image})["scores"], scores)


def test_manifest_comes_first_and_its_hash_is_the_digest(packed, classifier):
    made = packed(classifier, recipe="fp32")
    raw = zipfile.ZipFile(made.built.bundle).read("manifest.json")
    assert made.names[0] == "manifest.json"
    assert made.built.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    for name, entry in made.manifest["files"].items():
        content = (made.folder / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"])
    with zipfile.ZipFile(made.built.bundle) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_document_has_every_key_of_the_interface(packed, classifier, npz):
    made = packed(classifier, recipe="int8", calibration=str(npz))
    document = json.loads(json.dumps(made.built.document()))
    assert document["bundle"] == "tiny-linux-x86-64.edgepack"
    assert document["digest"].startswith("sha256:")
    assert (document["target"], document["runtime"], document["recipe"]) == ("linux-x86-64", "onnxruntime", "int8")
    assert document["size_bytes"] == made.built.bundle.stat().st_size
    assert document["model_file"] in made.names
    assert [step["name"] for step in document["steps"]] == ["quantize_static"]
    assert isinstance(document["findings"], list)


def test_manifest_says_what_went_in(packed, classifier, npz):
    manifest = packed(classifier, recipe="int8", calibration=str(npz)).manifest
    assert manifest["source"] == {
        "format": "onnx",
        "name": "tiny.onnx",
        "digest": hashlib.sha256(classifier.read_bytes()).hexdigest(),
        "size_bytes": classifier.stat().st_size,
    }
    assert manifest["calibration"]["kind"] == "npz"
    assert manifest["calibration"]["samples"] == 20
    assert manifest["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 1, 8, 8], "layout": "nchw"}]
    assert manifest["outputs"] == [{"name": "scores", "dtype": "float32", "shape": [1, 10], "layout": ""}]
    assert manifest["session_options"] == {"disabled_optimizers": ["WeightBiasQuantization"]}
    assert manifest["runtime"]["name"] == "onnxruntime"


# The same build in a process of its own: another folder, another hash seed, another day for the sources.
_BUILD = """
import json, sys, packager
made = packager.build(**json.loads(sys.argv[1]))
print(made.digest)
"""


def build_elsewhere(folder, sources, arguments, seed, when):
    folder.mkdir(parents=True)
    for source in sources:
        copy = folder / source.name
        copy.write_bytes(source.read_bytes())
        os.utime(copy, (when, when))
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "UTC" if seed == "1" else "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, json.dumps(arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return (folder / "out.edgepack").read_bytes()


@pytest.mark.parametrize("recipe", RECIPES)
def test_same_inputs_same_bytes(place, classifier, npz, recipe):
    arguments = {"model": "tiny.onnx", "target": "raspberry-pi-5", "recipe": recipe, "calibration": "samples.npz"}
    arguments["output"] = "out.edgepack"
    one = build_elsewhere(place / "one", [classifier, npz], arguments, "1", 1_000_000_000)
    two = build_elsewhere(place / "far" / "two", [classifier, npz], arguments, "2", 1_700_000_000)
    assert one == two


@pytest.mark.parametrize(
    ("target", "weight", "activation"),
    [
        ("linux-x86-64", "uint8", "uint8"),
        ("linux-x86-64-vnni", "int8", "uint8"),
        ("raspberry-pi-5", "int8", "int8"),
        ("jetson-orin", "int8", "int8"),
    ],
)
def test_int8_types_are_those_of_the_device(packed, classifier, npz, target, weight, activation):
    made = packed(classifier, target, runtime="onnxruntime", recipe="int8", calibration=str(npz))
    graph = made.model.graph
    stored = {one.name: str(onnx.helper.tensor_dtype_to_np_dtype(one.data_type)) for one in graph.initializer}
    dims = {one.name: len(one.dims) for one in graph.initializer}
    points = {str(stored[n.input[2]]) for n in graph.node if n.op_type == "QuantizeLinear"}
    weights = {
        stored[n.input[0]] for n in graph.node if n.op_type == "DequantizeLinear" and dims.get(n.input[0], 0) > 1
    }
    assert (weights, points) == ({weight}, {activation})
    options = made.manifest["steps"][-1]["options"]
    assert (options["weight_type"], options["activation_type"], options["per_channel"]) == (weight, activation, True)
    axes = [n for n in graph.node if n.op_type == "DequantizeLinear" and any(a.name == "axis" for a in n.attribute)]
    assert axes, "weights are quantised per channel"


@pytest.mark.parametrize("opset", [11, 12])
def test_old_opset_is_raised_so_that_per_channel_is_valid(packed, place, npz, opset):
    made = packed(models.classifier(place / "old.onnx", opset=opset), recipe="int8", calibration=str(npz))
    assert made.opset() == 13
    onnx.checker.check_model(made.model, full_check=True)
    assert made.manifest["steps"][0]["name"] == "move_opset"
    assert made.manifest["steps"][0]["options"] == {"from": opset, "to": 13}


def test_newer_opset_is_lowered_to_what_the_profiles_runtime_loads(packed, place):
    model = models.linear(place / "new.onnx", opset=21, ir=10)
    made = packed(model, old_runtime(place, "1.16.3"), recipe="fp32")
    assert made.opset() == 19
    assert made.model.ir_version <= 9
    x = models.weights(1, 4)
    np.testing.assert_allclose(models.run_onnx(made.model_path, {"x": x})["y"], models.run_onnx(model, {"x": x})["y"])


def test_bundle_asks_for_the_oldest_runtime_that_loads_it(packed, place):
    made = packed(models.linear(place / "m.onnx", opset=17, ir=8), recipe="fp32")
    assert made.manifest["runtime"]["min_version"] == "1.12"


def test_external_data_comes_along(packed, place, npz):
    model = onnx.load(str(models.classifier(place / "plain.onnx")))
    onnx.save(model, str(place / "big.onnx"), save_as_external_data=True, location="big.bin", size_threshold=0)
    made = packed(place / "big.onnx", recipe="int8", calibration=str(npz))
    both = (place / "big.onnx").stat().st_size + (place / "big.bin").stat().st_size
    assert made.manifest["source"]["size_bytes"] == both
    scores = made.golden("outputs")["scores"][0]
    image = made.golden("inputs")["image"][0]
    np.testing.assert_array_equal(models.run_onnx(place / "plain.onnx", {"image": image})["scores"], scores)


@pytest.mark.parametrize("recipe", RECIPES)
def test_model_too_large_for_one_file_is_shipped_in_two(packed, classifier, npz, monkeypatch, recipe):
    monkeypatch.setattr(onnx_model, "_ONE_FILE_LIMIT", 1000)
    made = packed(classifier, recipe=recipe, calibration=str(npz))
    image, scores = made.golden("inputs")["image"][0], made.golden("outputs")["scores"][0]
    assert cosine(models.run_onnx(made.model_path, {"image": image})["scores"], scores) > 0.99
    if recipe in ("fp32", "fp16"):
        assert any(name.endswith(".data") for name in made.names)


def test_random_calibration_is_stamped(packed, classifier):
    made = packed(classifier, recipe="int8", calibration="random")
    assert made.manifest["calibration"]["kind"] == "random"
    assert made.manifest["golden"]["made_from"] == "random"
    assert "random-calibration" in made.codes()


def test_one_sample_calibrates_with_a_doubt(packed, classifier, place):
    made = packed(classifier, recipe="int8", calibration=str(models.samples(place / "one.npz", 1)))
    assert "few-calibration-samples" in made.codes()
    assert made.manifest["calibration"]["samples"] == 1


def test_int8_without_data_says_both_ways_out(place, classifier):
    with pytest.raises(UsageError) as caught:
        packager.build(str(classifier), "raspberry-pi-5", recipe="int8")
    assert "--calibration" in str(caught.value)
    assert "--recipe fp32" in str(caught.value)
    assert not list(place.glob("*.edgepack"))


def test_profiles_own_recipe_is_taken(place, classifier, packed, npz):
    with pytest.raises(UsageError, match="needs calibration data"):
        packager.build(str(classifier), "raspberry-pi-5")
    assert packed(classifier, "raspberry-pi-5", calibration=str(npz)).manifest["recipe"]["name"] == "int8"


def test_runtime_of_a_later_version_is_refused_with_a_way_out(classifier, place):
    text = files("profiles").joinpath("linux-x86-64.toml").read_text(encoding="utf-8")
    text = text.replace('name = "linux-x86-64"', 'name = "with-npu"') + '\n[runtimes.npu]\nversion = "1.0"\n'
    (place / "with-npu.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConvertError) as caught:
        packager.build(str(classifier), "./with-npu.toml", runtime="npu", recipe="fp32")
    assert caught.value.code == "runtime-not-yet"
    with pytest.raises(UsageError, match="unknown runtime"):
        packager.build(str(classifier), "linux-x86-64", runtime="onnxruntme", recipe="fp32")


@pytest.mark.parametrize("recipe", ["int8", "fp32"])
def test_quantised_source_is_passed_through_never_quantised_twice(packed, classifier, npz, place, recipe):
    first = packed(classifier, recipe="int8", calibration=str(npz))
    source = place / "already.onnx"
    source.write_bytes(first.model_path.read_bytes())
    second = packed(source, recipe=recipe)
    assert second.operators() == first.operators()
    assert "already-quantised" in second.codes()
    assert second.manifest["facts"]["quantized"] is True
    assert second.manifest["session_options"] == first.manifest["session_options"]
    assert second.manifest["golden"]["tolerance"] == first.manifest["golden"]["tolerance"]


def test_quantised_source_is_refused_as_float16(packed, classifier, npz, place):
    first = packed(classifier, recipe="int8", calibration=str(npz))
    source = place / "already.onnx"
    source.write_bytes(first.model_path.read_bytes())
    with pytest.raises(ConvertError, match="already quantised"):
        packager.build(str(source), "linux-x86-64", recipe="fp16")


def test_signed_weights_on_a_processor_that_saturates_are_doubted(packed, classifier, npz, place):
    first = packed(classifier, "raspberry-pi-5", recipe="int8", calibration=str(npz))
    source = place / "signed.onnx"
    source.write_bytes(first.model_path.read_bytes())
    assert "signed-weights" in packed(source, "linux-x86-64", recipe="fp32").codes()
    assert "signed-weights" not in packed(source, "linux-x86-64-vnni", recipe="fp32", output="v.edgepack").codes()


def test_half_precision_is_doubted_where_the_processor_has_none(packed, classifier):
    assert "fp16-unsupported" in packed(classifier, "raspberry-pi-4", recipe="fp16").codes()
    made = packed(classifier, "raspberry-pi-5", recipe="fp16")
    assert "fp16-unsupported" not in made.codes()
    assert made.built.document()["model_bytes"] < classifier.stat().st_size * 0.8
    assert [one["dtype"] for one in made.manifest["inputs"] + made.manifest["outputs"]] == ["float32", "float32"]


def test_free_batch_is_kept(packed, place, npz):
    made = packed(models.classifier(place / "free.onnx", batch="n"), recipe="int8", calibration=str(npz))
    assert made.manifest["inputs"][0]["shape"] == ["n", 1, 8, 8]
    assert models.run_onnx(made.model_path, {"image": models.images(5)})["scores"].shape == (5, 10)


def test_free_batch_is_fixed_with_shape(packed, place):
    model = models.classifier(place / "free.onnx", batch="n")
    made = packed(model, recipe="fp32", shapes=("image=2x1x8x8",))
    assert made.manifest["inputs"][0]["shape"] == [2, 1, 8, 8]
    assert made.manifest["outputs"][0]["shape"] == [2, 10]
    assert made.golden("inputs")["image"].shape == (4, 2, 1, 8, 8)
    assert made.manifest["steps"][0]["name"] == "fix_shapes"


def test_fixed_batch_of_several_is_fed_in_batches(packed, place, npz):
    made = packed(models.classifier(place / "four.onnx", batch=4), recipe="int8", calibration=str(npz))
    assert made.golden("inputs")["image"].shape == (4, 4, 1, 8, 8)
    assert made.manifest["calibration"]["samples"] == 20


def test_scalar_input_stays_a_scalar(packed, place):
    node = onnx.helper.make_node("Mul", ["x", "k"], ["y"])
    model = models.save(
        place / "s.onnx", [node], [models.tensor("x", [1, 4]), models.tensor("k", [])], [models.tensor("y", [1, 4])]
    )
    made = packed(model, recipe="fp32")
    assert made.golden("inputs")["k"].shape == (4,)
    data = models.samples(place / "s.npz", x=models.weights(6, 4), k=models.weights(6))
    made = packed(model, recipe="fp32", calibration=str(data))
    assert made.golden("inputs")["k"].shape == (4,)


def test_free_dimension_has_one_size_in_every_input(packed, place):
    node = onnx.helper.make_node("Add", ["x", "state"], ["y"])
    inputs = [models.tensor("x", ["batch", "time"]), models.tensor("state", [2, "batch", "time"])]
    model = models.save(place / "m.onnx", [node], inputs, [models.tensor("y", [2, "batch", "time"])])
    made = packed(model, recipe="fp32", shapes=("x=3x5",))
    assert made.golden("inputs")["state"].shape == (4, 2, 3, 5)
    assert [one["shape"] for one in made.manifest["inputs"]] == [[3, 5], [2, 3, 5]]
    with pytest.raises(UsageError, match="free dimensions: time"):
        packager.build(str(model), "linux-x86-64", recipe="fp32")


def test_output_without_a_shape_gets_its_rank_from_the_run(packed, place):
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    anything = onnx.helper.make_tensor_value_info("y", models.FLOAT, None)
    made = packed(models.save(place / "m.onnx", [node], [models.tensor("x", [1, 4])], [anything]), recipe="fp32")
    assert len(made.manifest["outputs"][0]["shape"]) == 2


def test_doc_strings_and_paths_of_the_exporter_are_left_out(packed, classifier):
    model = onnx.load(str(classifier))
    model.graph.node[0].doc_string = "/home/someone/train.py:12"
    model.graph.doc_string = "made on a certain day"
    onnx.save(model, str(classifier))
    made = packed(classifier, recipe="fp32")
    assert b"someone" not in made.model_path.read_bytes()
    assert b"certain day" not in made.model_path.read_bytes()


def test_unfaithful_conversion_is_refused(packed, place):
    # The weights are below the smallest float16: all become that one.
    constants = [("w", models.weights(4, 3) * np.float32(1e-9)), ("big", np.float32([3e4]))]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        onnx.helper.make_node("Mul", ["m", "big"], ["n"], name="mul1"),
        onnx.helper.make_node("Mul", ["n", "big"], ["y"], name="mul2"),
    ]
    model = models.save(place / "m.onnx", nodes, [models.tensor("x", [1, 4])], [models.tensor("y", [1, 3])], constants)
    with pytest.raises(ConvertError) as caught:
        packager.build(str(model), "raspberry-pi-5", recipe="fp16")
    assert caught.value.code == "parity"
    assert not list(place.glob("*.edgepack*"))
    assert packed(model, "raspberry-pi-5", recipe="fp16", check=False).manifest["recipe"]["name"] == "fp16"


def test_dry_run_writes_nothing(place, classifier, npz):
    request = pipeline.Request(str(classifier), "linux-x86-64", recipe="int8", calibration=str(npz))
    work = place / "work"
    work.mkdir()
    document = pipeline.prepare(request, work).document()
    assert [step["name"] for step in document["steps"]] == ["quantize_static"]
    assert document["output"] == "tiny-linux-x86-64.edgepack"
    assert not list(work.iterdir())
    assert sorted(path.name for path in place.iterdir()) == ["samples.npz", "tiny.onnx", "work"]


def test_plan_is_what_is_done(place, packed, npz):
    model = models.classifier(place / "old.onnx", opset=11, batch="n")
    options = {"recipe": "int8", "calibration": str(npz), "shapes": ("image=1x1x8x8",)}
    planned = pipeline.prepare(pipeline.Request(str(model), "linux-x86-64", **options), place).document()["steps"]
    done = packed(model, **options).manifest["steps"]
    assert [(s["name"], s["options"]) for s in planned] == [(s["name"], s["options"]) for s in done]


@pytest.mark.parametrize(
    ("model", "name"),
    [("a/b/net.onnx", "net"), ("net.v2.onnx", "net.v2"), ("x/My Net.pt2", "My-Net"), ("lib/net.py:small", "net"),
     ("package.module:make", "package.module"), ("net.pt", "net"), ("..onnx", "model")],
)  # fmt: skip
def test_bundle_is_named_after_the_model(model, name):
    assert pipeline.model_name(model) == name


def test_progress_is_told(classifier, place):
    said = []
    packager.build(str(classifier), "linux-x86-64", recipe="fp32", progress=said.append)
    assert said[0] == "reading the model"
    assert said[-1] == "writing the bundle"
