"""The closed loop counts exactly, and keeps every sample in order."""

import gc
import time

import pytest

from agent.measure import sampler


class Counter:
    """A model that only counts."""

    def __init__(self, seconds=0.0):
        self.calls = 0
        self.collected = []
        self.seconds = seconds

    def run(self, _):
        self.calls += 1
        self.collected.append(gc.isenabled())
        time.sleep(self.seconds)


@pytest.mark.parametrize("runs", [1, 2, 1000])
def test_runs_are_exact(runs):
    model = Counter()
    assert len(sampler.sample(model.run, {}, 0.0, runs)) == runs
    assert model.calls == runs


def test_runs_decide_and_seconds_do_not():
    assert len(sampler.sample(Counter().run, {}, 1e-9, 50)) == 50


def test_seconds_end_it_after_the_inference_that_crosses_them():
    start = time.perf_counter_ns()
    times = sampler.sample(Counter(0.01).run, {}, 0.1, None)
    spent = time.perf_counter_ns() - start
    assert sum(times) <= spent
    # Without the last one the time was not yet up.
    assert sum(times[:-1]) < 0.1e9
    assert spent >= 0.1e9


def test_at_least_one_inference_is_timed():
    assert len(sampler.sample(Counter().run, {}, 0.0, None)) == 1


def test_each_sample_holds_its_inference():
    assert all(sample >= 0.002e9 for sample in sampler.sample(Counter(0.002).run, {}, 0.0, 5))


def test_garbage_collector_waits_and_comes_back():
    model = Counter()
    sampler.sample(model.run, {}, 0.0, 3)
    assert model.collected == [False] * 3
    assert gc.isenabled()


def test_garbage_collector_comes_back_after_a_failure():
    def fail(feed):
        raise RuntimeError("the model broke")

    with pytest.raises(RuntimeError):
        sampler.sample(fail, {}, 0.0, 3)
    assert gc.isenabled()


def test_warm_up_reaches_both_its_runs_and_its_seconds():
    assert len(sampler.warm_up(Counter().run, {}, 0.0, 7)) == 7
    assert sampler.warm_up(Counter().run, {}, 0.0, 0) == []
    start = time.perf_counter_ns()
    sampler.warm_up(Counter(0.001).run, {}, 0.05, 1)
    assert time.perf_counter_ns() - start >= 0.05e9


def test_endless_measuring_has_an_end(monkeypatch):
    monkeypatch.setattr(sampler, "MAX_SAMPLES", 100)
    assert len(sampler.sample(Counter().run, {}, 1e6, None)) == 100
    assert len(sampler.warm_up(Counter().run, {}, 1e6, 1)) == 100
