"""XNNPACK's operators are aligned, in order, with those of the model; what fits nothing stays untied."""

import pytest

from agent.contract.errors import DeviceError
from agent.litert.layers import Node, aligned, layers
from agent.litert.profiler import DELEGATED, OWN, Event


def test_a_pad_goes_into_the_convolution_behind_and_an_activation_into_the_one_before():
    tags = ["Convolution (NHWC, F32) IGEMM", "Convolution (NHWC, F32) DWConv", "Softmax (NC, F32)"]
    kinds = ["PAD", "CONV_2D", "RELU6", "DEPTHWISE_CONV_2D", "SOFTMAX"]
    assert aligned(tags, kinds) == [[0, 1, 2], [3], [4]]


def test_an_added_copy_stands_for_nothing():
    tags = ["Static Reshape (NC)", "Static Reshape (NC)", "Fully Connected (NC, F32) GEMM"]
    assert aligned(tags, ["RESHAPE", "FULLY_CONNECTED"]) == [[0], [], [1]]


def test_a_kind_that_nobody_knows_takes_the_place_that_is_left():
    assert aligned(["Add (ND)", "Frobnicate (NC)", "Add (ND)"], ["ADD", "MIRROR_PAD", "ADD"]) == [[0], [1], [2]]


def test_quantising_in_and_out_is_overhead():
    tags = ["Convert (NC)", "Softmax (NC, F32)", "Convert (NC)"]
    events = [Event(DELEGATED, tag, place, 5) for place, tag in enumerate(tags)]
    nodes = [Node("DEQUANTIZE", ["real"]), Node("SOFTMAX", ["p"]), Node("QUANTIZE", ["q"])]
    rows = layers([events], nodes, [[0, 1, 2]])
    assert [(row["original"], row["overhead"]) for row in rows] == [(["real"], True), (["p"], False), (["q"], True)]


def test_another_partition_than_the_interpreters_is_not_guessed_at():
    events = [Event(DELEGATED, "Add (ND)", 0, 1), Event(OWN, "CUMSUM", 1, 3), Event(DELEGATED, "Add (ND)", 0, 1)]
    nodes = [Node("ADD", ["a"]), Node("CUMSUM", ["b"]), Node("ADD", ["c"])]
    assert [row["original"] for row in layers([events], nodes, [[0, 2]])] == [[], ["b"], []]
    assert [row["original"] for row in layers([events], nodes, [[0], [2]])] == [["a"], ["b"], ["c"]]


def test_no_events_are_no_layers():
    with pytest.raises(DeviceError) as error:
        layers([[], []], [], [])
    assert error.value.code == "no-layers"
