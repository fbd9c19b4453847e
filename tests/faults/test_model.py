"""Broken models: each test is named after its fault. The command says what it is, and nothing is written."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from packager.cli.main import run
from tests.packager import models

USAGE, CONVERT = 2, 3


@pytest.fixture
def build(refused):
    def call(model, *more):
        return refused("build", model, "--target", "linux-x86-64", "--recipe", "fp32", *more)

    return call


def test_no_such_file(build):
    status, said = build("nothing.onnx")
    assert (status, "there is no such model file" in said) == (USAGE, True)


@pytest.mark.parametrize("content", [b"", b"this is text\n", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\x00" * 64])
def test_not_a_model(build, place, content):
    (place / "m.onnx").write_bytes(content)
    status, said = build("m.onnx")
    assert status == USAGE
    assert "not a whole ONNX file" in said or "not an ONNX model" in said


def test_folder_called_like_a_model(build, place):
    (place / "m.onnx").mkdir()
    assert build("m.onnx")[0] == USAGE


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_truncated_onnx(build, place, share):
    raw = models.classifier(place / "m.onnx").read_bytes()
    (place / "m.onnx").write_bytes(raw[: int(len(raw) * share)])
    status, said = build("m.onnx")
    assert status in (USAGE, CONVERT)
    assert "m.onnx" in said


def test_cut_at_every_byte_of_a_small_model(build, place):
    raw = models.linear(place / "m.onnx").read_bytes()
    for length in range(0, len(raw), 5):
        (place / "m.onnx").write_bytes(raw[:length])
        assert build("m.onnx")[0] in (USAGE, CONVERT), length


def test_operator_nobody_knows(build, place):
    node = helper.make_node("FancyAttention", ["m"], ["y"], name="block_3/fancy")
    status, said = build(models.linear(place / "m.onnx", extra=[node]))
    assert status == CONVERT
    assert "ai.onnx.FancyAttention" in said
    assert "block_3/fancy" in said


def test_operator_of_a_domain_nobody_knows(build, place):
    node = helper.make_node("Warp", ["m"], ["y"], name="w", domain="acme.ops")
    status, said = build(models.linear(place / "m.onnx", extra=[node], domains=[helper.make_opsetid("acme.ops", 1)]))
    assert (status, "acme.ops.Warp" in said) == (CONVERT, True)


def test_operator_the_runtime_does_not_have(build, place):
    node = helper.make_node("NoSuchKernel", ["m"], ["y"], name="k", domain="com.microsoft")
    domains = [helper.make_opsetid("com.microsoft", 1)]
    status, said = build(models.linear(place / "m.onnx", extra=[node], domains=domains))
    assert (status, "NoSuchKernel" in said) == (CONVERT, True)


def test_operator_nobody_knows_in_a_branch(build, place):
    odd = helper.make_graph(
        [helper.make_node("Fancy", ["m"], ["b"], name="inner")], "b", [], [models.tensor("b", [1, 3])]
    )
    even = helper.make_graph([helper.make_node("Relu", ["m"], ["b2"])], "e", [], [models.tensor("b2", [1, 3])])
    nodes = [
        helper.make_node("ReduceSum", ["m"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=odd, else_branch=even),
    ]
    status, said = build(models.linear(place / "m.onnx", extra=nodes))
    assert (status, "'inner'" in said) == (CONVERT, True)


def test_node_that_reads_what_nobody_writes(build, place):
    node = helper.make_node("Add", ["m", "nowhere"], ["y"])
    status, said = build(models.linear(place / "m.onnx", extra=[node]))
    assert (status, "nowhere" in said) == (CONVERT, True)


def external(place):
    model = onnx.load(str(models.classifier(place / "plain.onnx")))
    (place / "plain.onnx").unlink()
    onnx.save(model, str(place / "m.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)


def test_missing_external_data(build, place):
    external(place)
    (place / "weights.bin").unlink()
    status, said = build("m.onnx")
    assert (status, "weights.bin" in said) == (USAGE, True)


def test_truncated_external_data(build, place):
    external(place)
    raw = (place / "weights.bin").read_bytes()
    (place / "weights.bin").write_bytes(raw[:-100])
    assert build("m.onnx")[0] in (USAGE, CONVERT)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname"])
def test_external_data_outside_the_folder(build, place, location):
    external(place)
    (place.parent / "outside.bin").write_bytes((place / "weights.bin").read_bytes())
    model = onnx.load(str(place / "m.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (place / "m.onnx").write_bytes(model.SerializeToString())
    assert build("m.onnx")[0] == USAGE


def test_no_inputs(build, place):
    node = helper.make_node("Identity", ["w"], ["y"])
    path = models.save(place / "m.onnx", [node], [], [models.tensor("y", [3])], [("w", models.weights(3))])
    status, said = build(path)
    assert (status, "the model has no inputs" in said) == (CONVERT, True)


def test_no_outputs(build, place):
    node = helper.make_node("Identity", ["x"], ["y"])
    status, said = build(models.save(place / "m.onnx", [node], [models.tensor("x", [3])], []))
    assert (status, "the model has no outputs" in said) == (CONVERT, True)


def test_zero_size_dimension(build, place):
    node = helper.make_node("Identity", ["x"], ["y"])
    path = models.save(place / "m.onnx", [node], [models.tensor("x", [1, 0, 4])], [models.tensor("y", [1, 0, 4])])
    status, said = build(path)
    assert (status, "nothing fits into it" in said) == (CONVERT, True)


def test_unbounded_dimensions(build, place):
    path = models.classifier(place / "m.onnx", batch="n", side="side")
    status, said = build(path)
    assert status == USAGE
    assert "--shape image=1x1xSIDExSIDE" in said


def test_input_without_a_shape(build, place):
    node = helper.make_node("Identity", ["x"], ["y"])
    anything = helper.make_tensor_value_info("x", models.FLOAT, None)
    status, said = build(models.save(place / "m.onnx", [node], [anything], [models.tensor("y", [1])]))
    assert (status, "how many dimensions" in said) == (CONVERT, True)


def test_input_that_is_no_tensor(build, place):
    node = helper.make_node("SequenceLength", ["x"], ["y"])
    sequence = helper.make_tensor_sequence_value_info("x", models.FLOAT, [1, 4])
    path = models.save(place / "m.onnx", [node], [sequence], [models.tensor("y", [], TensorProto.INT64)])
    status, said = build(path)
    assert (status, "'x' is no tensor" in said) == (CONVERT, True)


def test_input_of_text(build, place):
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER")
    ends = [models.tensor("x", [1], TensorProto.STRING)], [models.tensor("y", [1], TensorProto.STRING)]
    assert build(models.save(place / "m.onnx", [node], *ends))[0] in (USAGE, CONVERT)


def test_newer_opset_than_anybody_knows(build, place):
    assert build(models.linear(place / "m.onnx", opset=99))[0] == CONVERT


def test_newer_ir_version_than_anybody_knows(build, place):
    assert build(models.linear(place / "m.onnx", ir=99))[0] == CONVERT


def test_opset_above_the_profiles_runtime_that_cannot_be_lowered(refused, place):
    node = helper.make_node("Gelu", ["m"], ["y"], name="gelu")
    model = models.linear(place / "m.onnx", opset=20, ir=9, extra=[node])
    status, said = refused("build", model, "-t", models.old_runtime(place, "1.14.1"), "-r", "fp32")
    assert status == CONVERT
    assert "from opset 20 to 18" in said
    assert "choose a profile" in said


def test_runtime_older_than_any_that_edgepack_knows(refused, place):
    model = models.linear(place / "m.onnx")
    status, said = refused("build", model, "-t", models.old_runtime(place, "1.2.0"), "-r", "fp32")
    assert (status, "older than" in said) == (CONVERT, True)


def test_shape_that_does_not_fit(build, place):
    model = models.classifier(place / "m.onnx", batch="n")
    assert build(model, "--shape", "image=1x3x8x8")[0] == USAGE
    assert build(model, "--shape", "picture=1x1x8x8")[0] == USAGE
    assert build(model, "--shape", "image=big")[0] == USAGE


def test_model_that_divides_by_its_input_is_no_bug(place):
    node = helper.make_node("Div", ["x", "z"], ["y"])
    constants = [("z", np.zeros(4, np.float32))]
    path = models.save(place / "m.onnx", [node], [models.tensor("x", [1, 4])], [models.tensor("y", [1, 4])], constants)
    assert run(["build", str(path), "-t", "linux-x86-64", "-r", "fp32"]) == 0


@pytest.mark.parametrize("name", ["saved_model.pb", "model.engine", "model", "weights.safetensors"])
def test_format_that_is_not_read(build, place, name):
    (place / name).write_bytes(b"something")
    status, said = build(name)
    assert (status, "model.onnx" in said) == (USAGE, True)
