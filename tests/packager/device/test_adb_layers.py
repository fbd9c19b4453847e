"""Operators' times in benchmark_model's words. SYNTHETIC: written by hand in the documented form, measured nowhere."""

import pytest

from packager.device.adb_layers import parse_layers

HEAD = "\t[node type]\t{start}  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]\n"
COUNT = "INFO: count=50 first=90 curr=70 min=70 max=90 avg=2500.5 std=3\n"
INIT = (
    "============================== Run Order ==============================\n{head}"
    "\t ModifyGraphWithDelegate\t{start}   1.0\t   1.0\t 99.0%\t 99.0%\t  34.0\t 1\tModifyGraphWithDelegate/0\n\n"
)
RUNS = (
    "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    "============================== Run Order ==============================\n{head}"
    "\t  CONV_2D\t{start}  4.3\t  1.5\t 60.0%\t 60.0%\t 0.0\t 1\t[net/conv1/Relu6, net/conv1/Bias]:0\n"
    "\t  TRANSPOSE\t{start}  0.6\t  0.5\t 20.0%\t 80.0%\t 0.0\t 1\t[net/turned]:1\n"
    "\t  TfLiteXNNPackDelegate\t{start}  0.6\t  0.5\t 20.0%\t100.0%\t 0.0\t 1\t[scores]:2\n\n"
    "============================== Top by Computation Time ==============================\n{head}"
    "\t  CONV_2D\t{start}  4.3\t  9.9\t 60.0%\t 60.0%\t 0.0\t 1\t[net/conv1/Relu6]:0\n"
)


@pytest.mark.parametrize(("start", "value"), [("", ""), ("[start]\t", "0.000\t")])
def test_operators_in_order_with_the_tensors_they_make(start, value):
    head = HEAD.format(start=start)
    found = parse_layers(COUNT + INIT.format(head=head, start=value) + RUNS.format(head=head, start=value))
    assert [(one.kind, one.time_ns, one.provider, one.overhead) for one in found.layers] == [
        ("CONV_2D", 1_500_000.0, "tflite", False),
        ("TRANSPOSE", 500_000.0, "tflite", True),
        ("TfLiteXNNPackDelegate", 500_000.0, "delegate", False),
    ]
    assert found.layers[0].original == ["net/conv1/Relu6", "net/conv1/Bias"]
    assert (found.runs, found.total_ns, found.unread) == (50, 2_500_500.0, "")


@pytest.mark.parametrize("text", ["", COUNT, INIT.format(head=HEAD.format(start=""), start=""), "Run Order\t\t\t"])
def test_a_binary_without_profiling_says_so(text):
    found = parse_layers(text)
    assert found.layers == []
    assert "no operators' times" in found.unread


def test_lines_that_are_no_numbers_are_left_out():
    text = COUNT + RUNS.format(head=HEAD.format(start=""), start="").replace("  1.5\t", "  nonsense\t")
    assert [one.kind for one in parse_layers(text).layers] == ["TRANSPOSE", "TfLiteXNNPackDelegate"]
