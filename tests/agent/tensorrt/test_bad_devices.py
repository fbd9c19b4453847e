"""Devices on which no engine can be built, and files that are none: what each is told. Other faults stand beside what they
are about: test_ladder (memory, a build that is killed), test_cache (a full disk), test_whole_road (no driver, another
major, a corrupt engine), test_engine (a shape outside, a missing input).
"""

import sys

import pytest

from agent.contract.errors import DeviceError
from agent.runners import tensorrt as runner
from agent.tensorrt import trtexec
from agent.tensorrt.cudart import Cudart


def test_no_tensorrt_and_no_trtexec(monkeypatch, stub_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(trtexec, "PLACES", ())
    monkeypatch.setattr(trtexec, "find", lambda: None)
    monkeypatch.setattr(runner, "Cudart", lambda: Cudart(str(stub_path)))
    with pytest.raises(DeviceError) as caught:
        runner.environment(progress=lambda _: None)
    assert caught.value.code == "no-runtime"
    assert "nvidia-jetpack" in caught.value.fix
    assert runner.installed_version() is None


def test_an_engine_file_offered_as_a_model(tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(b"ptrt")
    with pytest.raises(DeviceError) as caught:
        runner.Runner().load(str(path), {})
    assert caught.value.code == "no-engine"
    assert caught.value.where == "model.engine"


@pytest.mark.parametrize("option", ["precison", "DLA"])
def test_a_session_option_that_is_not_known(option):
    from agent.contract.errors import ContractError

    with pytest.raises(ContractError, match=r"did you mean|known"):
        runner._check_options({option: 1})
