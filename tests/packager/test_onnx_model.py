"""ONNX files: described, fixed, moved, cleaned, saved."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agent.contract.errors import ConvertError, UsageError
from packager import onnx_model
from tests.packager import models


def test_inputs_and_outputs_are_described(place):
    kinds = {"x": TensorProto.FLOAT, "n": TensorProto.INT64, "h": TensorProto.FLOAT16, "u": TensorProto.UINT8}
    inputs = [models.tensor(name, ["batch", None, 3], kind) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = onnx_model.load_model(models.save(place / "m.onnx", nodes, inputs, [models.tensor("y", [None, 2, 3])]))
    found = onnx_model.model_inputs(model)
    assert [(spec.name, spec.dtype) for spec in found] == [
        ("x", "float32"),
        ("n", "int64"),
        ("h", "float16"),
        ("u", "uint8"),
    ]
    assert found[0].shape == ["batch", "x_1", 3]
    assert onnx_model.model_outputs(model)[0].shape == ["y_0", 2, 3]


def test_initialisers_among_the_inputs_are_no_inputs(place):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs = [models.tensor("x", [1, 4]), models.tensor("w", [4, 3])]
    path = models.save(place / "m.onnx", nodes, inputs, [models.tensor("y", [1, 3])], [("w", models.weights(4, 3))])
    assert [spec.name for spec in onnx_model.model_inputs(onnx_model.load_model(path))] == ["x"]


def test_one_name_is_one_size(place):
    node = helper.make_node("Add", ["a", "b"], ["y"])
    inputs = [models.tensor("a", ["n", "t"]), models.tensor("b", ["n", "t"])]
    path = models.save(place / "m.onnx", [node], inputs, [models.tensor("y", ["n", "t"])])
    fixed = onnx_model.fix_shapes(onnx_model.load_model(path), {"a": (2, 7)})
    assert [spec.shape for spec in onnx_model.model_inputs(fixed)] == [[2, 7], [2, 7]]
    assert onnx_model.model_outputs(fixed)[0].shape == [2, 7]


def test_minus_one_and_question_marks_are_free_and_not_the_same(place):
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [models.tensor("x", [-1, 3, "?", "?"])], [models.tensor("y", [-1, 3, "?", "?"])]
    model = onnx_model.load_model(models.save(place / "m.onnx", [node], *ends))
    assert onnx_model.model_inputs(model)[0].shape == ["x_0", 3, "x_2", "x_3"]
    fixed = onnx_model.fix_shapes(model, {"x": (1, 3, 48, 192)})
    assert onnx_model.model_inputs(fixed)[0].shape == [1, 3, 48, 192]
    assert onnx_model.model_outputs(fixed)[0].shape == [1, 3, 48, 192]


def test_shape_that_the_layers_do_not_allow_is_refused(place):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [models.tensor("x", ["n", "k"])], [models.tensor("y", ["n", 3])]
    path = models.save(place / "m.onnx", [node], *ends, [("w", models.weights(4, 3))])
    with pytest.raises(ConvertError, match="does not work with x=1x5"):
        onnx_model.fix_shapes(onnx_model.load_model(path), {"x": (1, 5)})


@pytest.mark.parametrize("wanted", [13, 17, 19, 21])
def test_moved_model_computes_the_same(place, wanted):
    path = models.classifier(place / "m.onnx", opset=17)
    moved = onnx_model.move_opset(onnx_model.load_model(path), wanted)
    assert onnx_model.opset(moved) == wanted
    onnx_model.save_model(moved, place / "moved.onnx")
    feed = {"image": models.images(1)}
    np.testing.assert_allclose(
        models.run_onnx(place / "moved.onnx", feed)["scores"], models.run_onnx(path, feed)["scores"], rtol=1e-6
    )


def test_opset_that_cannot_be_reached_is_refused(place):
    gelu = helper.make_node("Gelu", ["x"], ["y"])
    path = models.save(place / "m.onnx", [gelu], [models.tensor("x", [1, 4])], [models.tensor("y", [1, 4])], opset=20)
    with pytest.raises(ConvertError, match="cannot go from opset 20 to 17") as caught:
        onnx_model.move_opset(onnx_model.load_model(path), 17)
    assert caught.value.code == "opset"


def test_large_model_is_saved_with_its_weights_beside_it(place, monkeypatch):
    path = models.classifier(place / "m.onnx")
    monkeypatch.setattr(onnx_model, "_ONE_FILE_LIMIT", 500)
    (companion,) = onnx_model.save_model(onnx_model.load_model(path), place / "big.onnx")
    assert onnx_model.external_files(onnx_model.load_model(place / "big.onnx", weights=False)) == [companion.name]
    feed = {"image": models.images(1)}
    found = models.run_onnx(place / "big.onnx", feed)["scores"]
    np.testing.assert_array_equal(found, models.run_onnx(path, feed)["scores"])


def test_weights_kept_as_float_lists_count(place, monkeypatch):
    model = onnx.load(str(models.linear(place / "m.onnx", size=64)))
    values = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [64, 3], values.ravel().tolist()))
    monkeypatch.setattr(onnx_model, "_ONE_FILE_LIMIT", 500)
    assert onnx_model.save_model(model, place / "big.onnx")


def test_clean_reaches_every_node_and_keeps_the_users_properties(place):
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "b", [], [models.tensor("b", [1])])
    branch.node[0].doc_string = "/home/u/x.py"
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    inputs = [models.tensor("c", [], TensorProto.BOOL), models.tensor("x", [1])]
    model = onnx.load(str(models.save(place / "m.onnx", [node], inputs, [models.tensor("y", [1])])))
    helper.set_model_props(model, {"labels": "cat,dog"})
    model.producer_name = "torch"
    cleaned = onnx_model.clean(model)
    assert b"/home/u" not in cleaned.SerializeToString()
    assert cleaned.metadata_props[0].value == "cat,dog"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Load model from /tmp/edgepack-build-x1/a.onnx failed", "Load model from a.onnx failed"),
        ("object at 0x7f12ab34cd", "object at 0x..."),
        ("a/b is 1/2", "a/b is 1/2"),
    ],
)
def test_told_errors_name_no_folders(said, told):
    assert onnx_model.told(ValueError(said)) == told


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello, this is text\n", bytes(range(256))])
def test_what_is_no_model_is_refused(place, content):
    (place / "m.onnx").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        onnx_model.load_model(place / "m.onnx")
    assert caught.value.code == "not-onnx"


def test_operators_in_functions_and_of_the_runtime_are_known(place):
    fused = helper.make_node("Gelu", ["m"], ["y"], domain="com.microsoft")
    path = models.linear(place / "m.onnx", extra=[fused], domains=[helper.make_opsetid("com.microsoft", 1)])
    onnx_model.check_model(onnx_model.load_model(path), "m.onnx")
    twice = helper.make_function("mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                                 [helper.make_opsetid("", 17)])  # fmt: skip
    call = helper.make_node("Twice", ["m"], ["y"], domain="mine")
    domains = [helper.make_opsetid("mine", 1)]
    path = models.linear(place / "f.onnx", extra=[call], domains=domains, functions=[twice])
    onnx_model.check_model(onnx_model.load_model(path), "f.onnx")
