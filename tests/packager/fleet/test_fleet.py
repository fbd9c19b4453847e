"""Fleets: none stops another, what passes is tried again, what is late is ended, a sick stage goes back."""

import threading
import time

import pytest

from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from packager.fleet.journal import Journal
from packager.fleet.rollout import Health, Rollout, Stage, parse_share, parse_stages
from packager.fleet.run import DEADLINE, Fleet, Limits, Outcome


class Pretend:
    """A device that does as its name says."""

    tries: dict = {}  # noqa: RUF012 - shared on purpose: a device is opened anew for each try

    def __init__(self, name):
        self.address, self.session, self._ended = name, self, threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def interrupt(self):
        self._ended.set()

    def progress(self, _):
        pass

    def rollback(self, _slot, leaving, *, emptying):
        assert (leaving, emptying) == ("new", True)
        if "stuck" in self.address:
            raise DeviceError("the disk is full", code="disk-full")
        Pretend.tries[self.address] = "rollback"

    def work(self):
        count = Pretend.tries[self.address] = Pretend.tries.get(self.address, 0) + 1
        if "flaky" in self.address and count == 1:
            raise TransientDeviceError("the link was lost")
        if "broken" in self.address:
            raise DeviceError("no Python", code="no-python")
        if "bug" in self.address:
            raise ZeroDivisionError
        if "slow" in self.address:
            self._ended.wait(30)
            raise KeyboardInterrupt
        return {"bundle": "new", "activated": {"replaced": "old"}}


@pytest.fixture(autouse=True)
def fresh():
    Pretend.tries = {}


def run(names, **limits):
    limits = Limits(**{"pause": 0.01, **limits})
    return {one.device: one for one in Fleet(Pretend, Pretend.work, limits).run(names)}


def test_one_in_five_fails_in_its_own_way_and_the_rest_is_done():
    names = [f"d{number}" for number in range(20)] + ["broken", "bug", "flaky", "slow"]
    found = run(names, retries=2, deadline=0.5)
    assert {name for name, one in found.items() if one.error} == {"broken", "bug", "slow"}
    assert found["broken"].error.code == "no-python"
    assert (found["bug"].error.code, found["bug"].error.exit_code) == ("bug", 1)
    assert (found["slow"].error.code, found["slow"].tries) == (DEADLINE, 1)
    assert (found["flaky"].error, found["flaky"].tries) == (None, 2)


def test_without_retries_what_passes_is_told():
    assert run(["flaky"])["flaky"].error.retry


def test_a_reader_that_leaves_ends_the_work():
    outcomes = Fleet(Pretend, Pretend.work, Limits(at_once=2)).run(["d1", "slow", "d2", "d3"])
    next(outcomes)
    start = time.monotonic()
    outcomes.close()
    assert time.monotonic() - start < 10
    assert threading.active_count() < 5


def test_stages():
    assert parse_stages("1,10%,100%", 200) == [1, 20, 200]
    assert parse_stages("1,10%", 5) == [1, 5]
    assert parse_stages("50", 5) == [5]
    for text in ("", "x", "-1", "0%", "50%,10%", "1.5", "nan", "inf%"):
        with pytest.raises(UsageError):
            parse_stages(text, 100)
    assert parse_share("2%") == 0.02
    for text in ("2", "x%", "200%", "nan%"):
        with pytest.raises(UsageError):
            parse_share(text)


def rollout(names, ends, halt_on):
    made = Rollout(Pretend, Pretend.work, Health("vision", "b.edgepack"), Limits(pause=0.01))
    events = list(made.run(names, ends, halt_on))
    return [one for one in events if isinstance(one, Outcome)], [one for one in events if isinstance(one, Stage)]


def test_a_healthy_roll_out_serves_everyone():
    outcomes, stages = rollout([f"d{number}" for number in range(20)], [1, 2, 20], 0.0)
    assert len(outcomes) == 20
    assert [(one.devices, one.failed, one.halted) for one in stages] == [(1, 0, False), (1, 0, False), (18, 0, False)]


def test_a_sick_stage_goes_back_and_the_next_never_begins():
    outcomes, stages = rollout(["d0", "d1", "d2", "broken", "stuck", "d5", "d6"], [1, 5, 7], 0.02)
    assert [one.device for one in outcomes if one.device in {"d5", "d6"}] == []
    assert [one.halted for one in stages] == [False, True]
    assert stages[1].rolled_back == ("d1", "d2")
    assert [name for name, _ in stages[1].stuck] == ["stuck"]
    assert Pretend.tries["d0"] == 1  # the first stage was well: it stays
    assert Pretend.tries["d1"] == "rollback"


def test_few_failures_within_the_share_do_not_halt():
    _, stages = rollout(["broken", *(f"d{number}" for number in range(99))], [100], 0.02)
    assert [(one.failed, one.halted, one.rolled_back) for one in stages] == [(1, False, ())]


def test_an_interrupted_fleet_goes_on_where_it_stopped(tmp_path):
    journal = Journal(["push", "sha256:0"], tmp_path)
    assert journal.start(resume=False) == {}
    journal.add("a", {"bytes_sent": 1})
    journal.add("b", {"bytes_sent": 2})
    journal.add("b", None)
    with journal.path.open("ab") as file:
        file.write(b'{"device": "c", "resu')
    again = Journal(["push", "sha256:0"], tmp_path)
    assert again.start(resume=True) == {"a": {"bytes_sent": 1}}
    again.add("d", {})
    assert set(again.done()) == {"a", "d"}
    assert Journal(["push", "sha256:1"], tmp_path).start(resume=True) == {}
    again.finish()
    assert again.done() == {}
