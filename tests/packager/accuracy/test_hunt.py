"""The layers that carry the noise, found among many with few measurements."""

import pytest

from packager.accuracy.hunt import hunt
from packager.accuracy.ladder import ranked
from packager.accuracy.sensitivity import Sensitivity
from packager.compress.onnx_layers import Layer


def layers(count):
    return [Layer(f"l{place}", "Conv", 10, 10) for place in range(count)]


class Net:
    """Layers whose noise adds up; `loud` ones by place."""

    def __init__(self, loud):
        self.loud, self.measured = loud, []

    def __call__(self, group):
        self.measured.append(len(group))
        noise = sum(self.loud.get(one.name, 1e-6) for one in group)
        return Sensitivity(group[0], noise, "out[0]", noise)


@pytest.mark.parametrize("count", [32, 128, 512])
def test_loud_layers_are_found_with_few_measurements(count):
    loud = {f"l{count // 5}": 0.5, f"l{count // 2 + 1}": 0.3, f"l{count - 1}": 0.2}
    net = Net(loud)
    told = hunt(layers(count), net, lambda: False)
    assert [one.layer.name for one in ranked(told)[:3]] == list(loud)
    assert [one.layer for one in told] == layers(count)
    assert len(net.measured) <= 8 + 3 * 2 * 7
    assert len(net.measured) <= count


def test_every_layer_of_a_small_net_is_measured():
    net = Net({"l3": 0.5})
    told = hunt(layers(16), net, lambda: False)
    assert net.measured == [1] * 16
    assert told[3].noise == 0.5


def test_noise_that_is_everywhere_takes_no_more_than_a_measurement_for_each_layer():
    net = Net({f"l{place}": 0.1 for place in range(40)})
    assert all(one.noise == pytest.approx(0.1) for one in hunt(layers(40), net, lambda: False))
    assert len(net.measured) <= 40


def test_time_that_is_up_leaves_parts_of_groups_and_nothing_for_the_rest():
    net = Net({"l0": 0.8, "l39": 0.2})
    told = hunt(layers(40), net, lambda: len(net.measured) >= 6)
    assert told[0].noise == pytest.approx(0.8 / 5, rel=0.01)
    assert told[39].noise == 0
    assert len(told) == 40
