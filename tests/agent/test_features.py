"""What a bundle needs is checked before anything of it runs."""

import numpy as np
import onnxruntime
import pytest

from agent import features
from agent.contract.errors import DeviceError
from agent.contract.facts import RuntimeFacts
from agent.contract.manifest import RuntimeNeed
from agent.probes import cpu, reading
from tests.agent.bundles import manifest


def need(**changes):
    return manifest(runtime=RuntimeNeed(**{"name": "onnxruntime", "min_version": "1.0", **changes}))


def refused(check, document):
    with pytest.raises(DeviceError) as caught:
        check(document)
    assert caught.value.fix
    return caught.value


def test_device_that_has_all_passes():
    features.check_cpu(need(cpu_features=cpu.features()))
    features.check_runtime(need())
    features.check_runtime(need(min_version=onnxruntime.__version__))


def test_missing_instructions_are_named_with_those_that_are_there():
    error = refused(features.check_cpu, need(cpu_features=[*cpu.features(), "telepathy", "sve9"]))
    assert error.what.endswith("lacks: telepathy, sve9")
    assert error.code == "cpu-features"
    assert all(name in error.where for name in cpu.features())


@pytest.mark.parametrize("bounds", [{"min_version": "99.0"}, {"below_version": "1.1"}])
def test_version_outside_the_range(bounds):
    error = refused(features.check_runtime, need(**bounds))
    assert error.code == "runtime-version"
    assert onnxruntime.__version__ in error.what


def test_version_that_is_the_upper_bound_is_outside():
    release = ".".join(str(part) for part in features.release(onnxruntime.__version__))
    assert refused(features.check_runtime, need(below_version=release)).code == "runtime-version"


@pytest.mark.parametrize("name", reading.runner_names())
@pytest.mark.parametrize("lacking", ["numpy", "all"])
def test_every_runtime_says_what_must_be_installed(monkeypatch, name, lacking):
    monkeypatch.setattr(reading, "distribution_version", lambda _: None)
    if lacking == "all":
        monkeypatch.setattr(reading, "distribution_version", lambda names: "2.0" if names == ["numpy"] else None)
        monkeypatch.setattr(reading, "installed", lambda _: RuntimeFacts(name=name, version=None))
    error = refused(features.check_runtime, need(name=name))
    assert error.code == ("no-numpy" if lacking == "numpy" else "no-runtime")
    wanted = {"tensorrt": "nvidia-jetpack", "pytorch_lite": "torch", "executorch": "executorch torch"}
    assert wanted.get(name, " install ") in error.fix


def test_runtime_that_this_agent_does_not_know():
    assert refused(features.check_runtime, need(name="abacus")).code == "no-runner"


@pytest.mark.parametrize(
    ("version", "release"),
    [("1.20.0", (1, 20, 0)), ("1.20.0rc1", (1, 20, 0)), ("2.3+cpu", (2, 3)), ("", (0,)), ("v1", (0,))],
)
def test_release_part_of_a_version(version, release):
    assert features.release(version) == release


def test_versions_compare_by_number():
    assert features.release("1.9.0") < features.release("1.10.0")
    assert features.release(np.__version__) > (1, 20)
