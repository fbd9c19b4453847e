"""Text lines and pages."""

import numpy as np

from benchmarks.int8_accuracy import split
from benchmarks.zoo import reading


def test_both_halves_of_turned_views_have_every_turn_and_no_line_twice(tmp_path):
    views, labels = reading.turned([[np.array([line, turn]) for turn in range(4)] for line in range(6)])
    np.savez(tmp_path / "eval.npz", x=views, labels=labels)
    halves = []
    for path in split(tmp_path, tmp_path, 10_000):
        with np.load(path) as data:
            assert (data["x"][:, 1] == data["labels"]).all()
            assert set(data["labels"]) == {0, 1, 2, 3}
            halves.append(set(data["x"][:, 0]))
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(range(6))


def test_reading_collapses_repetitions_and_leaves_out_blanks(scored):
    metric = scored(reading.READING.format(steps=6, start=0, ignored=(0,)))
    steps = np.array([[1, 1, 0, 1, 2, 2], [1, 2, 2, 2, 0, 0]])
    outputs = {"x": np.eye(3, dtype=np.float32)[steps]}
    truth = np.array([[1, 1, 2, -1], [1, 2, 2, -1]])
    assert metric.measure(outputs, truth).rows.tolist() == [1.0, 0.0]
