"""The agent on an old Python whose only TFLite is tflite-runtime, LiteRT's predecessor; and what numpy 2 does to that."""

import pytest

from agent.contract import codec
from agent.contract.errors import DeviceError
from agent.contract.report import Report
from tests.agent.remote import Agent
from tests.agent.test_zipapp_runs import python_with_runtime
from tests.tflite_models import built, classifier, needs_tflite

pytestmark = [*needs_tflite, pytest.mark.device, pytest.mark.timeout(900)]
PACKAGES = ["tflite-runtime==2.14.0", "numpy<2"]


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_runs_and_is_right_on_python_3_9(tmp_path, recipe):
    device = Agent(python_with_runtime("3.9", PACKAGES), tmp_path)
    made = built(tmp_path, classifier(), recipe)
    device.install(made.bundle, made.digest)
    report = codec.decode(Report, device.ask("bench", digest=made.digest, runs=10, rounds=1, warmup_seconds=0.0))
    assert report.parity.verdict == "pass"
    assert report.runtime.version == "2.14.0 (tflite-runtime)"
    assert report.runtime.placement["xnnpack"] > 0


def test_numpy_2_is_named_as_the_reason(tmp_path):
    device = Agent(python_with_runtime("3.9", ["tflite-runtime==2.14.0", "numpy==2.0.2"]), tmp_path)
    made = built(tmp_path, classifier(), "fp32")
    device.install(made.bundle, made.digest)
    with pytest.raises(DeviceError) as error:
        device.ask("check", digest=made.digest)
    assert "numpy<2" in error.value.fix
