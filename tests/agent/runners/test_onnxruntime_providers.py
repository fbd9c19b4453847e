"""Which provider really computed each node: from profiles as onnxruntime writes them. No GPU was at hand: the events of CUDA
and TensorRT are synthetic, in the form of the CPU's real ones.
"""

import pytest

from agent.contract.errors import DeviceError
from agent.runners.onnxruntime import Runner, chain, placed
from agent.verbs.bench import elsewhere
from packager import demo_data

CPU, CUDA, TENSORRT = ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider")


def event(name, operator, provider):
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": operator, "provider": provider}}


def test_tensorrt_leaves_to_cuda_what_it_does_not_take_and_only_then_to_the_cpu():
    assert chain(TENSORRT, [TENSORRT, CUDA, CPU]) == [TENSORRT, CUDA]
    assert chain(TENSORRT, [TENSORRT, CPU]) == [TENSORRT]
    assert chain(CUDA, [TENSORRT, CUDA, CPU]) == [CUDA]
    assert chain(CPU, [CPU]) == [CPU]


def test_every_node_that_was_elsewhere_is_named():
    events = [event("conv", "Conv", CUDA), event("nms", "NonMaxSuppression", CPU), {"cat": "Session", "name": "run"}]
    counts, stray = placed([*events, events[0]], CUDA)
    assert counts == {CUDA: 1, CPU: 1}
    assert stray == ["nms (NonMaxSuppression) on CPUExecutionProvider"]
    (finding,) = elsewhere({"elsewhere": stray, "placement": counts, "provider": CUDA})
    assert finding.code == "nodes-elsewhere"
    assert "1 of 2 nodes did not run on CUDAExecutionProvider: nms" in finding.message
    assert elsewhere({"elsewhere": [], "placement": counts, "provider": CUDA}) == []


def test_a_real_profile_of_the_cpu_has_nothing_elsewhere(tmp_path):
    import numpy as np

    runner = Runner()
    runner.load(str(demo_data.model_path()), {"profile": str(tmp_path)})
    with np.load(demo_data.eval_path()) as data:
        runner.run({"image": data["image"][:1]})
    assert set(runner.placement()) == {CPU}
    assert runner.elsewhere() == []
    runner.close()


def test_asking_for_the_gpu_and_getting_the_cpu_is_a_failure(tmp_path):
    import numpy as np

    runner = Runner()
    runner.load(str(demo_data.model_path()), {"profile": str(tmp_path)})
    with np.load(demo_data.eval_path()) as data:
        runner.run({"image": data["image"][:1]})
    runner._provider = CUDA
    with pytest.raises(DeviceError, match="asked for but not used") as caught:
        runner.placement()
    assert caught.value.code == "provider-not-used"
    assert CPU in caught.value.where
    runner.close()
