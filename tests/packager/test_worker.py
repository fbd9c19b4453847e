"""Workers: one process for several tasks, started ahead, gone in the end; and what they say when they fail."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from agent.contract.errors import ConvertError
from packager import worker
from packager.worker import end_workers, run_worker, start_worker

WORKER = """
import os, sys, tempfile
print("loaded", file=sys.stderr)
count = 0

def warm():
    global count
    count = 100

def answer(task):
    global count
    count += 1
    print("working on", task["do"])
    if task["do"] == "die":
        os.kill(os.getpid(), 9)
    if task["do"] == "leave":
        raise SystemExit(3)
    if task["do"] == "fail":
        return {"error": "it does not convert", "code": "no-such-layer"}
    left = tempfile.mkstemp()[1]
    return {"pid": os.getpid(), "count": count, "left": left}
"""


@pytest.fixture(autouse=True)
def workers(tmp_path, monkeypatch):
    """A folder of workers with one of ours."""
    (tmp_path / "serve.py").write_bytes((worker.WORKERS / "serve.py").read_bytes())
    (tmp_path / "one.py").write_text(WORKER)
    monkeypatch.setattr(worker, "WORKERS", tmp_path)
    yield tmp_path
    end_workers()


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_answers_and_is_gone():
    found = run_worker("one", {"do": "work"})
    assert found["count"] == 101
    assert found["talk"] == "loaded\nworking on work"
    assert not is_there(found["pid"])
    assert not Path(found["left"]).parent.exists()


def test_a_kept_worker_takes_the_next_task():
    first = run_worker("one", {"do": "work"}, keep=True)
    second = run_worker("one", {"do": "again"}, keep=True)
    assert (second["pid"], second["count"]) == (first["pid"], 102)
    assert second["talk"] == "working on again"
    end_workers()
    assert not is_there(first["pid"])


def test_a_worker_started_ahead_takes_the_task():
    start_worker("one")
    (waiting,) = worker._waiting.values()
    assert run_worker("one", {"do": "work"})["pid"] == waiting._child.pid
    assert not worker._waiting


def test_what_the_host_does_meanwhile_is_done_before_the_answer():
    done = []
    run_worker("one", {"do": "work"}, meanwhile=lambda: done.append(True))
    assert done == [True]


def test_an_idle_worker_ends_by_itself_and_another_takes_its_place(workers):
    serve = workers / "serve.py"
    serve.write_text(serve.read_text().replace("IDLE = 60.0", "IDLE = 0.05"))
    first = run_worker("one", {"do": "work"}, keep=True)
    (waiting,) = worker._waiting.values()
    assert waiting._child.wait(20) == 75
    second = run_worker("one", {"do": "work"})
    assert second["pid"] != first["pid"]


def test_worker_that_dies_tells_the_signal_and_its_last_words():
    with pytest.raises(ConvertError, match="the converter died of signal 9") as caught:
        run_worker("one", {"do": "die"}, what="the converter")
    assert "working on die" in caught.value.where or "loaded" in caught.value.where


def test_worker_that_leaves_tells_its_code():
    with pytest.raises(ConvertError, match="one ended with 3"):
        run_worker("one", {"do": "leave"})


def test_a_worker_s_own_error_has_its_code_and_leaves_it_alive():
    first = run_worker("one", {"do": "work"}, keep=True)
    with pytest.raises(ConvertError, match="it does not convert") as caught:
        run_worker("one", {"do": "fail"}, keep=True)
    assert caught.value.code == "no-such-layer"
    assert run_worker("one", {"do": "work"})["pid"] == first["pid"]


def test_a_worker_that_cannot_be_loaded_tells_why(workers):
    (workers / "one.py").write_text("import there_is_no_such_module\n")
    with pytest.raises(ConvertError) as caught:
        run_worker("one", {"do": "work"})
    assert "there_is_no_such_module" in caught.value.where


def test_a_deadline_ends_the_worker(workers):
    (workers / "one.py").write_text("import time\ndef answer(task):\n    time.sleep(60)\n")
    start_worker("one")
    (waiting,) = worker._waiting.values()
    with pytest.raises(ConvertError) as caught:
        run_worker("one", {"do": "work"}, deadline=0.1)
    assert caught.value.code == "worker-timeout"
    assert waiting._child.returncode == -signal.SIGKILL


def test_a_host_that_is_killed_leaves_no_worker_behind(workers):
    """Its end of the pipe closes; nothing else tells the worker."""
    import subprocess

    code = (
        "import os, sys\nfrom pathlib import Path\nfrom packager import worker\n"
        f"worker.WORKERS = Path({str(workers)!r})\n"
        "found = worker.run_worker('one', {'do': 'work'}, keep=True)\n"
        "print(found['pid'], found['left'], flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    pid, left = int(done.stdout.split()[0]), done.stdout.split()[1]
    for _ in range(200):
        if not is_there(pid):
            break
        time.sleep(0.05)
    assert not is_there(pid)
    assert not Path(left).parent.exists()
