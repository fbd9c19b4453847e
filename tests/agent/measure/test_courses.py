"""Sustained runs, streams, rails: what is cut into windows, runs at once, or is read beside the work."""

import threading
import time

import pytest

from agent.measure import meter as meters
from agent.measure import streams, sustained
from agent.measuring import best_threads, candidates
from agent.probes import rails


def busy(_):
    end = time.perf_counter_ns() + 200_000
    while time.perf_counter_ns() < end:
        pass


def test_a_course_begins_at_zero_and_covers_its_time():
    said = []
    samples, windows = sustained.course(busy, {}, 1.1, progress=said.append)
    assert windows[0].begin_ns < 50_000_000
    assert windows[-1].begin_ns + windows[-1].wall_ns >= 1.1e9
    assert 1 <= len(windows) <= 6
    assert sum(one.kept for one in windows) == len(samples)
    assert all(one.kept == one.runs for one in windows), "there is room for all"
    assert all(one.reading.load_1min is not None for one in windows)


def test_a_long_course_keeps_evenly_what_it_has_room_for(monkeypatch):
    monkeypatch.setattr(sustained, "_MOST", 400)
    samples, windows = sustained.course(lambda _: None, {}, 0.5)
    assert len(samples) <= 400
    assert all(one.kept < one.runs for one in windows)


class Slow:
    def __init__(self, fail=False):
        self.fail, self.threads = fail, set()

    def run(self, _):
        self.threads.add(threading.get_ident())
        if self.fail:
            raise ValueError("broken stream")
        time.sleep(0.01)


def test_streams_overlap_and_share_the_runs():
    runners = [Slow() for _ in range(4)]
    samples, wall = streams.together(runners, {}, 0.0, 42)
    assert len(samples) == 42
    assert len(set.union(*[one.threads for one in runners])) == 4
    assert wall < sum(samples) / 2, "they did not wait for one another"


def test_a_stream_that_fails_fails_all():
    with pytest.raises(ValueError, match="broken stream"):
        streams.together([Slow(), Slow(fail=True)], {}, 0.05, None)


def put(root, path, text):
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(str(text))


ZONE = "/sys/class/powercap/intel-rapl:0"


@pytest.fixture
def root(tmp_path):
    for path, text in (("/name", "package-0"), ("/energy_uj", 9_000_000), ("/max_energy_range_uj", 10_000_000)):
        put(tmp_path, ZONE + path, text)
    put(tmp_path, f"{ZONE}:0/name", "core")
    put(tmp_path, f"{ZONE}:0/energy_uj", 500)
    put(tmp_path, "/sys/class/hwmon/hwmon0/name", "pmbus")
    put(tmp_path, "/sys/class/hwmon/hwmon0/power1_input", 2_500_000)
    return str(tmp_path)


def test_rails_by_name_and_unit(root):
    assert rails.powers(root) == {"pmbus power1": 2500.0}
    assert rails.counters(root)["package-0"] == (9.0, 10.0)
    assert rails.counters(root)["package-0/core"] == (0.0005, 0.0)


def test_no_rail_says_why(tmp_path):
    assert "no rail" in rails.why_none(str(tmp_path))
    put(tmp_path, f"{ZONE}/name", "package-0")
    assert "root" in rails.why_none(str(tmp_path))
    with meters.Meter(str(tmp_path)) as meter:
        assert not meter.found
    assert meter.between(0, 10) == {}


def test_a_counter_that_begins_anew_loses_nothing(root, tmp_path):
    meter = meters.Meter(root)
    meter.read()
    put(tmp_path, ZONE + "/energy_uj", 1_000_000)
    time.sleep(0.2)
    meter.read()
    (first, _), (last, joules) = meter._seen
    assert joules["package-0"] == pytest.approx(2.0)
    assert meter.between(first, last)["package-0"] == pytest.approx(2.0)
    assert meter.between(first, (first + last) // 2)["package-0"] == pytest.approx(1.0, rel=1e-3)
    assert joules["pmbus power1"] == pytest.approx(2.5 * (last - first) / 1e9)


def test_joules_are_cut_to_a_stretch_of_the_time(root):
    with meters.Meter(root, period=0.05) as meter:
        time.sleep(0.2)
        begun = time.perf_counter_ns()
        time.sleep(0.3)
    assert meter.between(begun, begun + 200_000_000)["pmbus power1"] == pytest.approx(2.5 * 0.2)
    assert meter.mean_mw()["pmbus power1"] == pytest.approx(2500.0)


def test_threads_that_are_tried_and_taken():
    assert [candidates(cores) for cores in (1, 2, 4, 6)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 6]]
    assert best_threads({"1": 100, "2": 60, "4": 59}) == 2, "4 threads bring 1.7 %: not worth two cores"
    assert best_threads({"1": 100, "2": 101}) == 1
