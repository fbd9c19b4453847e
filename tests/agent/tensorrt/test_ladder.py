"""The ladder and the cache, with a builder that fails as the test says."""

import pytest

from agent.contract.errors import DeviceError
from agent.contract.manifest import Manifest, RuntimeNeed, Source
from agent.tensorrt import cache, ladder
from agent.workshop import Workshop

MIB = 1 << 20
ENVIRONMENT = {"tensorrt": "10.3.0", "backend": "python", "compute_capability": "8.7", "sms": 8}


def manifest():
    return Manifest(
        name="m",
        target="jetson-orin",
        runtime=RuntimeNeed("tensorrt", "10.0", "11"),
        model="model/model.onnx",
        files={},
        inputs=[],
        outputs=[],
        recipe={},
        source=Source("onnx", "m.onnx", "0" * 64, 1),
        steps=[],
        edgepack="0",
        session_options={"precision": "int8", "strong": True, "workspace_bytes": 1 << 30},
    )


class Builder:
    """Answers the workshop's calls; `failures` are raised by the builds, in order; `stale` by the first opening."""

    def __init__(self, *failures, stale=None, environment=ENVIRONMENT):
        self.failures, self.stale, self.environment = list(failures), stale, environment
        self.rungs = []

    def __call__(self, function, arguments, seconds=0.0):
        assert seconds > 0
        if function == "environment":
            return dict(self.environment)
        if function == "open_engine":
            if self.stale is not None:
                stale, self.stale = self.stale, None
                raise stale
            return True
        self.rungs.append(arguments["rung"])
        if self.failures:
            raise self.failures.pop(0)
        from pathlib import Path

        facts = {**arguments["facts"], "seconds": 2.0}
        return cache.keep(Path(arguments["place"]), arguments["name"], b"plan", facts)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(b"onnx")

    def go(builder, available=4 << 30, board=None):
        shop = Workshop(str(tmp_path / "cache"), builder, lambda _: None, available, board or {"l4t": "36.4.3"})
        return ladder.prepare(manifest(), str(tmp_path), {"threads": 0}, shop)

    return go


def failed(code, what="no"):
    return DeviceError(what, code=code)


def test_the_second_time_nothing_is_built(run):
    first, second = Builder(), Builder()
    prepared = run(first)
    assert [finding.code for finding in prepared.findings] == ["engine-built"]
    assert prepared.options["threads"] == 0
    assert run(second).options == prepared.options
    assert (len(first.rungs), len(second.rungs)) == (1, 0)


def test_another_jetpack_builds_again(run):
    run(Builder())
    again = Builder()
    run(again, board={"l4t": "36.5.0"})
    assert len(again.rungs) == 1


def test_an_engine_that_does_not_open_is_built_again_once_and_said(run):
    run(Builder())
    again = Builder(stale=failed("engine-stale", "the engine does not deserialise"))
    prepared = run(again)
    assert len(again.rungs) == 1
    assert [finding.code for finding in prepared.findings] == ["engine-rebuilt", "engine-built"]


def test_a_crash_while_opening_counts_as_stale(run):
    run(Builder())
    assert len(run(Builder(stale=failed("child-sigsegv"))).findings) == 2


def test_failures_go_down_the_ladder_and_are_said(run):
    builder = Builder(failed("build-failed"), failed("child-sigkill", "killed"), failed("out-of-memory"))
    prepared = run(builder)
    assert [rung["level"] for rung in builder.rungs] == [3, 2, 1, 1]
    assert [rung["workspace_bytes"] // MIB for rung in builder.rungs] == [1024, 1024, 1024, 512]
    assert [finding.code for finding in prepared.findings] == ["engine-built", "engine-ladder"]
    assert "level 2" in prepared.findings[1].message


def test_the_end_of_the_ladder_tells_what_was_tried(run):
    with pytest.raises(DeviceError, match="no engine could be built") as caught:
        run(Builder(*[failed("build-failed")] * 4))
    assert caught.value.where.count("level") == 4


@pytest.mark.parametrize("code", ["parse-failed", "no-gpu", "no-space", "bad-profile", "runtime-version"])
def test_what_a_smaller_engine_cannot_cure_is_not_tried_again(run, code):
    builder = Builder(failed(code))
    with pytest.raises(DeviceError) as caught:
        run(builder)
    assert caught.value.code == code
    assert len(builder.rungs) == 1


def test_a_build_without_end_is_ended(run):
    with pytest.raises(DeviceError, match="not built within 30 minutes"):
        run(Builder(failed("child-timeout")))


def test_too_little_memory_is_told_before_a_build(run):
    builder = Builder()
    with pytest.raises(DeviceError, match="too little memory") as caught:
        run(builder, available=200 * MIB)
    assert caught.value.code == "low-memory"
    assert builder.rungs == []


def test_the_workspace_is_at_most_half_of_what_is_free():
    assert ladder.workspace({"workspace_bytes": 1 << 30}, 1 << 30) == 512 * MIB
    assert ladder.workspace({"workspace_bytes": 64 * MIB}, 1 << 30) == 64 * MIB
    assert ladder.workspace({}, None) == 1 << 30


def test_8_5_has_only_less_workspace():
    assert ladder.rungs("8.5.2", 400) == [{"level": None, "workspace_bytes": size} for size in (400, 200, 100)]
