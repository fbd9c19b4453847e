"""One measurement at a time, in the order of asking; a lease keeps others out until it ends."""

import threading

import pytest

from agent import turn
from agent.contract.errors import TransientDeviceError, UsageError


class Quiet:
    def __init__(self):
        self.said = []

    def progress(self, message):
        self.said.append(message)


def test_the_next_waits_for_the_first(tmp_path):
    order, wire, inside, go = [], Quiet(), threading.Event(), threading.Event()

    def first():
        with turn.mine(tmp_path, "first", 10, wire):
            inside.set()
            go.wait(10)
            order.append("first")

    def second():
        with turn.mine(tmp_path, "second", 60, wire):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    inside.wait(10)
    with pytest.raises(TransientDeviceError, match="first has the device"), turn.mine(tmp_path, "x", 0, wire):
        pass
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second"]
    assert turn.waiting(tmp_path) == []


def test_nobody_waits_for_a_place_whose_process_has_died(tmp_path):
    (tmp_path / "turns").mkdir()
    (tmp_path / "turns" / "000000000001.json").write_text('{"owner": "dead"}')
    with turn.mine(tmp_path, "alive", 0, Quiet()):
        assert [one["owner"] for one in turn.waiting(tmp_path)] == ["alive"]


def test_a_lease_keeps_others_out_and_ends(tmp_path, monkeypatch):
    turn.take(tmp_path, "alice", 60)
    with turn.mine(tmp_path, "alice", 0, Quiet()):
        pass
    with pytest.raises(TransientDeviceError, match="alice has the device"), turn.mine(tmp_path, "bob", 0, Quiet()):
        pass
    with pytest.raises(TransientDeviceError):
        turn.take(tmp_path, "bob", 60)
    with pytest.raises(TransientDeviceError):
        turn.release(tmp_path, "bob")
    with pytest.raises(UsageError):
        turn.take(tmp_path, "alice", 1e9)
    monkeypatch.setattr(turn, "_boot", lambda: "another")
    assert turn.lease(tmp_path) is None
    turn.take(tmp_path, "bob", 60)
    turn.release(tmp_path, "carol", force=True)
    assert turn.lease(tmp_path) is None
