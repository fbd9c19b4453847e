"""Names and order of what tf2onnx made, without TensorFlow; and, where its environment is there, the whole road."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from agent.contract.errors import ConvertError
from packager import toolchain
from packager.convert.onnx_from_keras import OnnxFromKeras, _order_and_name
from packager.registry import path_between

VALUES = {"input_0": np.float32([[1, 2]]), "input_1": np.float32([[10, 20]])}


def made(inputs=("input_1:0", "input_0:0"), output="output_0"):
    """output_0 = input_1 - input_0, the inputs listed the wrong way round and an inner tensor called `left`."""
    kind = TensorProto.FLOAT
    nodes = [
        helper.make_node("Identity", [inputs[0]], ["left"]),
        helper.make_node("Sub", ["left", inputs[1]], [output]),
    ]
    sides = [helper.make_tensor_value_info(name, kind, ["n", 2]) for name in (*inputs, output)]
    graph = helper.make_graph(nodes, "g", sides[:-1], sides[-1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_inputs_come_back_in_the_sources_order_and_names():
    model = made()
    _order_and_name(model, model.graph.input, "input", ["left", "right"])
    _order_and_name(model, model.graph.output, "output", ["difference"])
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["left", "right"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(["difference"], {"left": VALUES["input_0"], "right": VALUES["input_1"]})
    assert result.tolist() == [[9, 18]]


def test_names_of_the_source_that_are_numbered_otherwise():
    model = made()
    _order_and_name(model, model.graph.input, "input", ["input_1", "input_0"])
    _order_and_name(model, model.graph.output, "output", ["output_0"])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(["output_0"], {"input_1": VALUES["input_0"], "input_0": VALUES["input_1"]})
    assert result.tolist() == [[9, 18]]


def test_input_that_the_network_ignores_is_told():
    model = made()
    with pytest.raises(ConvertError) as error:
        _order_and_name(model, model.graph.input, "input", ["a", "b", "unused"])
    assert error.value.code == "tf2onnx"
    assert "unused" in error.value.expected


def test_keras_reaches_onnx_in_one_step():
    (edge,) = path_between("keras", "onnx")
    assert isinstance(edge, OnnxFromKeras)


def test_tool_is_pinned():
    tool = toolchain.find_tool("tf2onnx")
    assert all("==" in requirement for requirement in tool.requirements)
