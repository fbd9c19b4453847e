"""Layers that a runtime fused and renamed are tied to the model's own nodes."""

from onnx import helper

from agent.contract.protocol import Layer
from packager.device.layers import plain, tied
from packager.results.details import overhead_share


def layer(name, kind, time=100.0, overhead=False):
    return Layer(name, kind, "CPUExecutionProvider", time, overhead)


def node(kind, name, inputs, outputs):
    return helper.make_node(kind, inputs, outputs, name=name)


NODES = [
    node("Conv", "conv0", ["x", "w0"], ["c0"]),
    node("Relu", "relu0", ["c0"], ["r0"]),
    node("Conv", "conv1", ["r0", "w1"], ["c1"]),
    node("Relu", "relu1", ["c1"], ["r1"]),
    node("Transpose", "turn", ["r1"], ["t"]),
    node("Gemm", "conv10", ["t", "w2"], ["y"]),
]


def test_fused_nodes_go_to_the_layer_of_their_kind():
    layers = [
        layer("r0_nchwc", "Conv"),
        layer("fused conv1", "FusedConv"),
        layer("ReorderOutput", "ReorderOutput", 50.0, overhead=True),
        layer("turn", "Transpose", 50.0, overhead=True),
        layer("conv10", "Gemm"),
    ]
    found = tied(layers, NODES)
    assert [one.original for one in found] == [["conv0", "relu0"], ["conv1", "relu1"], [], ["turn"], ["conv10"]]


def test_a_transpose_of_the_models_own_is_no_overhead():
    own, added = tied([layer("turn", "Transpose", overhead=True), layer("T_7", "Transpose", overhead=True)], NODES)
    assert not own.overhead
    assert added.overhead
    assert overhead_share([own, added]) == 0.5


def test_quantising_is_overhead_even_where_the_bundle_names_it():
    nodes = [node("QuantizeLinear", "x_QuantizeLinear", ["x", "s", "z"], ["q"])]
    (found,) = tied([layer("x_QuantizeLinear", "QuantizeLinear", overhead=True)], nodes)
    assert found.overhead
    assert found.original == ["x_QuantizeLinear"]


def test_one_name_inside_another_is_not_taken():
    (found,) = tied([layer("conv10", "Gemm")], NODES[:1])
    assert found.original == []


def test_a_module_is_told_by_its_attributes():
    wrapper = "litert_torch._convert.to_channel_last_io.ChannelLastIOWrapper/_user_net.Net_wrapped"
    block = f"{wrapper}/torch.nn.modules.container.Sequential_features/_user_net.Block_1"
    conv, norm = f"{block}/torch.nn.modules.conv.Conv2d_conv", f"{block}/torch.nn.modules.batchnorm.BatchNorm2d_bn"
    assert plain([f"{block};;{norm};;{conv};2"]) == ["features.1.bn", "features.1.conv"]
    assert plain([f"{wrapper};1"]) == ["Net"]


def test_other_names_of_tensors_stay():
    assert plain(["scores_dequant", "net/conv/Relu;net/conv/BiasAdd"]) == [
        "scores_dequant",
        "net/conv/Relu",
        "net/conv/BiasAdd",
    ]
