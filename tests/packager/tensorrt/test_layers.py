from packager.tensorrt import layers

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
    assert table.advice() == "not in INT8: fc"
