"""The builder's layer table, and what edgepack says of it."""

import onnx
from onnx import TensorProto, helper

from packager.tensorrt import explained, layers

# In the form of TensorRT-RTX 1.7.1's log, shortened.
LINES = """\
Name: conv1 + relu1, LayerType: convolution, Inputs: [ { Name: a, Dimensions: [1,3,8,8], Datatype: Int8 }], \
Constants: [ { Name: w, Datatype: Int8 }], Outputs: [ { Name: b, Datatype: Int8 }], TacticName: t, \
Metadata: [ONNX Layer: conv1][ONNX Layer: relu1]
Name: fc, LayerType: gemm, Inputs: [ { Name: b, Datatype: Half }], Outputs: [ { Name: c, Datatype: Float }], \
Metadata: [ONNX Layer: fc]
Name: copy, LayerType: kgen, Inputs: [ { Name: c, Datatype: Float }], Outputs: [ { Name: d, Datatype: Float }]
""".splitlines()


def test_layers_types_and_fusions_are_read():
    table = layers.read([*LINES, "something else"], 100)
    assert [one.kind for one in table.layers] == ["convolution", "gemm", "kgen"]
    assert table.layers[0].inputs == ("Int8",)
    assert table.layers[0].nodes == ("conv1", "relu1")
    assert table.layers[1].outputs == ("Float",)
    assert table.types == {"Int8": 1, "Half": 1, "Float": 1}
    assert "1 of 2 convolutions and matrix products take INT8" in table.summary()


def test_why_a_layer_is_not_in_int8(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["a"], "dq_a"),
        helper.make_node("DequantizeLinear", ["k", "s"], ["w"], "dq_w"),
        helper.make_node("Conv", ["a", "w"], ["b"], "conv1"),
        helper.make_node("Relu", ["b"], ["c"], "relu1"),
        helper.make_node("Cast", ["w"], ["v"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["c", "v"], ["d"], "half"),
        helper.make_node("MatMul", ["c", "c"], ["e"], "fc"),
        helper.make_node("MatMul", ["a", "v"], ["f"], "both"),
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [])), str(tmp_path / "m.onnx"))
    kept = [layers.Layer(name, "gemm", ("Half",), ("Half",), (name,)) for name in ("half", "fc", "both")]
    table = layers.Table((*layers.read(LINES[:1], 1).layers, *kept, layers.Layer("x", "kgen", (), (), ("relu1",))), 1)
    told = explained.rows(table, tmp_path / "m.onnx")
    assert [row["int8"] for row in told] == [True, False, False, False, None]
    assert [row["why"] for row in told] == ["", explained.HALF_DONE, explained.LEFT, explained.BUILDER, ""]
    assert told[0]["nodes"] == ["conv1", "relu1"]
    assert f"not in INT8: fc ({explained.LEFT})" in explained.advice(told)
    explained.keep(told, tmp_path)
    assert explained.kept(tmp_path) == {"layers": told}

    onnx.save(helper.make_model(helper.make_graph(nodes[3:4], "g", [], [])), str(tmp_path / "m.onnx"))
    told = explained.rows(table, tmp_path / "m.onnx")
    assert told[2]["why"] == explained.FLOAT_MODEL
    assert explained.advice(told) == ""
