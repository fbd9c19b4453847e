"""What onnx2tf leaves as a custom operator is refused by name, without onnx2tf: its result is written by hand."""

import pytest
from onnx import TensorProto, helper

from agent.contract.errors import ConvertError
from packager.convert.tflite_from_onnx import _refuse_custom
from packager.tflite_model import parse_model
from tests.tflite_models import Graph, classifier, needs_tflite

pytestmark = needs_tflite


def graph(name="/head/measure/Det"):
    kind = TensorProto.FLOAT
    sides = [helper.make_tensor_value_info(name, kind, shape) for name, shape in (("image", [1, 4, 4]), ("area", [1]))]
    nodes = [helper.make_node("Det", ["image"], ["area"], name=name)]
    return helper.make_model(helper.make_graph(nodes, "g", sides[:1], sides[1:]))


def converted():
    g = Graph()
    image = g.tensor("image", [1, 4, 4])
    out = g.op("CUSTOM", [image], [g.tensor("area", [1])])
    g.model.operatorCodes[-1].customCode = b"ONNX_DET"
    return parse_model(g.raw([image], [out]))


def test_unsupported_operator_is_named_with_node_layer_and_what_could_replace_it():
    with pytest.raises(ConvertError) as error:
        _refuse_custom(converted(), graph())
    assert error.value.code == "unsupported-operator"
    assert error.value.exit_code == 3
    assert "Det" in error.value.what
    assert "'/head/measure/Det' of the layer 'head/measure'" in error.value.where
    assert "leave it to the program that calls the model" in error.value.fix


def test_unsupported_operator_without_a_name_is_found_by_its_output():
    with pytest.raises(ConvertError) as error:
        _refuse_custom(converted(), graph(name=""))
    assert error.value.where == "Det node 'area'"


def test_builtin_operators_pass():
    _refuse_custom(parse_model(classifier()), graph())
