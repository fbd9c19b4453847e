"""Accuracy on the device's own kernels, over SSH: the set is sent once, scores come back, nothing else stays there."""

from __future__ import annotations

import json

from packager import demo_data

OPTIONS = ("--runs", "30", "--rounds", "1", "--threads", "1")


def test_the_set_is_sent_once_and_scored_there(edgepack, board, bundle):
    device = board("kitchen")
    data = demo_data.eval_path()
    done = edgepack("bench", bundle, "kitchen", "--eval", data, *OPTIONS, "--json")
    (first,) = json.loads(done.stdout)["reports"]
    accuracy = first["accuracy"]
    assert (accuracy["metric"], accuracy["samples"]) == ("top1", 1000)
    assert 0.88 < accuracy["device"]["low"] < accuracy["device"]["score"] < accuracy["device"]["high"] < 0.96
    assert abs(accuracy["device"]["score"] - accuracy["host"]["score"]) < 0.01, "the same machine, by way of SSH"
    assert "of evaluation data" in done.stderr
    again = edgepack("bench", bundle, "kitchen", "--eval", data, *OPTIONS)
    assert "of evaluation data" not in again.stderr, "what is there is not sent again"
    assert "on the device's kernels" in again.stdout
    assert len(list((device.root / "data").iterdir())) == 1
    assert list((device.root / "incoming").iterdir()) == []
    shown = edgepack.json("results", "show", str(first["run"]))
    assert shown["accuracy"] == accuracy


def test_a_set_that_was_damaged_on_the_device_is_sent_again(edgepack, board, bundle):
    device = board("kitchen")
    data = demo_data.eval_path()
    edgepack("bench", bundle, "kitchen", "--eval", data, *OPTIONS)
    (file,) = (device.root / "data").iterdir()
    file.write_bytes(file.read_bytes()[:-4] + b"oops")
    edgepack("bench", bundle, "kitchen", "--eval", data, *OPTIONS, code=7)
    edgepack("bench", bundle, "kitchen", "--eval", data, *OPTIONS)
