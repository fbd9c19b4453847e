"""What a report holds beside its samples, derived as it is read."""

import dataclasses

import pytest

from agent.contract.protocol import Layer, Profile, Protocol
from agent.contract.report import ProbeReading, Window
from packager.results.details import (
    fewer,
    overhead_share,
    points,
    profile_document,
    shares,
    sustained_document,
    throughput,
)
from tests.packager.results.reports import report

ASKED = Protocol(3.0, None, 3, 0.5, 5)


def windowed(*windows, samples=None):
    one = report("job", rounds=1, n=40)
    rounds = [dataclasses.replace(one.rounds[0], windows=list(windows), samples_ns=samples or [10**6] * 40)]
    return dataclasses.replace(one, rounds=rounds, protocol=dataclasses.replace(ASKED, sustained_minutes=1.0))


def window(begin=0, runs=20, kept=20, wall=10**9):
    return Window(begin, wall, runs, kept, ProbeReading(frequency_mhz=[1500.0], temperature_c=40.0))


def test_windows_take_their_samples_in_order():
    found = points(windowed(window(), window(6 * 10**10), samples=[10**6] * 20 + [3 * 10**6] * 20))
    assert [(one.p50_ms, one.per_s, one.mhz, one.celsius) for one in found] == [
        (1.0, 20.0, 1500.0, 40.0),
        (3.0, 20.0, 1500.0, 40.0),
    ]
    assert found[1].minute == pytest.approx(1 + 0.5 / 60)


def test_the_end_is_held_against_the_beginning():
    told = sustained_document(windowed(window(), window(), samples=[10**6] * 20 + [3 * 10**6] * 20))
    assert (told["begin_p50_ms"], told["end_p50_ms"], told["end_over_begin"]) == (1.0, 3.0, 3.0)
    assert sustained_document(report("job")) is None


def test_windows_of_a_device_that_talks_nonsense():
    found = points(windowed(window(kept=-5), window(kept=0), window(wall=0, kept=10), window(kept=10**9)))
    assert [one.n for one in found] == [20]


def test_fewer_rows_keep_both_ends():
    found = points(windowed(*[window(begin=k, kept=1) for k in range(40)]))
    assert fewer(found, 5)[0] is found[0]
    assert fewer(found, 5)[-1] is found[-1]
    assert fewer(found, 100) is found


@pytest.mark.parametrize(("changes", "factor"), [({}, 1), ({"batch": 8}, 8)])
def test_throughput_counts_a_batch_s_samples(changes, factor):
    one = dataclasses.replace(report("job"), protocol=dataclasses.replace(ASKED, **changes))
    plain = throughput(report("job"))
    assert throughput(one) == pytest.approx(factor * plain)


def test_throughput_of_streams_is_by_the_wall():
    one = report("job", rounds=1, n=100)
    rounds = [dataclasses.replace(one.rounds[0], wall_ns=10**9)]
    asked = dataclasses.replace(ASKED, streams=4)
    assert throughput(dataclasses.replace(one, rounds=rounds, protocol=asked)) == pytest.approx(100.0)
    assert throughput(dataclasses.replace(one, rounds=[])) is None


def test_shares_of_layers_and_of_conversion():
    layers = [Layer("a", "Conv", "cpu", 300.0, False), Layer("t", "Transpose", "cpu", 100.0, True)]
    assert shares(layers) == [0.75, 0.25]
    assert overhead_share(layers) == 0.25
    assert overhead_share([]) is None
    told = profile_document(dataclasses.replace(report("job"), profile=Profile(layers, 10, 500.0)))
    assert [row["share"] for row in told["layers"]] == [0.75, 0.25]
    assert told["overhead_share"] == 0.25
