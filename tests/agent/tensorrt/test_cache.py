import errno
import json
import os
from pathlib import Path

import pytest

from agent.contract.errors import DeviceError
from agent.tensorrt import cache

ENVIRONMENT = {"tensorrt": "10.3.0", "compute_capability": "8.7", "sms": 8, "board": {"l4t": "36.4.3"}}
RECIPE = {"precision": "int8", "strong": True}


def test_every_part_of_the_environment_and_the_recipe_changes_the_key():
    first = cache.key(RECIPE, ENVIRONMENT)
    assert first == cache.key(dict(reversed(RECIPE.items())), dict(reversed(ENVIRONMENT.items())))
    others = [
        cache.key({**RECIPE, "precision": "fp16"}, ENVIRONMENT),
        *(cache.key(RECIPE, {**ENVIRONMENT, name: "x"}) for name in ENVIRONMENT),
    ]
    assert len({first, *others}) == len(others) + 1


def test_what_was_kept_is_found_with_its_record(tmp_path):
    record = cache.keep(tmp_path / "m", "abc", b"plan", {"seconds": 1.5})
    assert cache.find(tmp_path / "m", "abc") == record
    assert cache.read(record["path"], record["sha256"]) == b"plan"
    assert record["size"] == 4


def test_a_changed_engine_is_dropped(tmp_path):
    record = cache.keep(tmp_path, "abc", b"plan", {})
    Path(record["path"]).write_bytes(b"plan!")
    with pytest.raises(DeviceError, match="has changed") as caught:
        cache.read(record["path"], record["sha256"])
    assert caught.value.code == "engine-stale"
    assert cache.find(tmp_path, "abc") is None
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_is_cut_off_is_no_engine(tmp_path):
    cache.keep(tmp_path, "abc", b"plan", {})
    (tmp_path / "abc.json").write_text('{"sha')
    assert cache.find(tmp_path, "abc") is None


def test_engines_of_another_jetpack_and_leftovers_go(tmp_path):
    cache.keep(tmp_path, "old", b"plan", {})
    (tmp_path / "new.plan.tmp").write_bytes(b"half")
    cache.keep(tmp_path, "new", b"plan", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "new.plan"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError, match="no space") as caught:
        cache.keep(tmp_path, "abc", b"plan", {})
    assert caught.value.code == "no-space"
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_model_s_own(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"1")
    (tmp_path / "b.onnx").write_bytes(b"2")
    assert cache.folder("/r", tmp_path / "a.onnx") != cache.folder("/r", tmp_path / "b.onnx")


def test_the_record_is_plain_json(tmp_path):
    cache.keep(tmp_path, "abc", b"plan", {"rung": {"level": 3}})
    assert json.loads((tmp_path / "abc.json").read_text())["rung"] == {"level": 3}
