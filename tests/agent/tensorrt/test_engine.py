"""Running an engine: the real bindings' signatures above, a C stub of CUDA below. No number here is a latency."""

import numpy as np
import pytest

from agent.contract.errors import DeviceError
from agent.tensorrt import api
from agent.tensorrt.engine import Engine, count_types
from tests.agent.tensorrt.standin import VERSIONS, StandIn

CUDA_CALLS = [
    "cudaStreamCreateWithFlags",
    "cudaEventCreateWithFlags",
    "cudaHostAlloc",
    "cudaMalloc",
    "cudaEventRecord",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "cudaEventElapsedTime",
]


def standin(version, **answers):
    names = ["image", "scores"]
    trt = StandIn(version)
    trt.answers = {
        "Runtime.deserialize_cuda_engine": lambda _: trt.ICudaEngine(),
        "ICudaEngine.num_io_tensors": 2,
        "ICudaEngine.get_tensor_name": lambda index: names[index],
        "ICudaEngine.get_tensor_mode": lambda n: trt.TensorIOMode.INPUT if n == "image" else trt.TensorIOMode.OUTPUT,
        "ICudaEngine.get_tensor_dtype": lambda _: trt.DataType.FLOAT,
        "ICudaEngine.get_tensor_shape": lambda n: (-1, 3) if n == "image" else (-1, 2),
        "ICudaEngine.get_tensor_profile_shape": lambda _n, _p: [(1, 3), (1, 3), (4, 3)],
        "ICudaEngine.is_shape_inference_io": False,
        "IExecutionContext.get_tensor_shape": lambda _: (1, 2),
        "ICudaEngine.create_execution_context": trt.IExecutionContext,
        "ICudaEngine.create_engine_inspector": trt.EngineInspector,
        **answers,
    }
    return trt


def opened(trt, cuda):
    runtime, engine = api.open_engine(trt, b"plan", api.make_logger(trt, api.Messages()))
    return Engine(trt, runtime, engine, cuda)


def feed(rows=1):
    return {"image": np.arange(3 * rows, dtype="float32").reshape(rows, 3)}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_times_three_parts_and_frees_everything(version, cuda, stub):
    trt = standin(version)
    engine = opened(trt, cuda)
    outputs = engine.run(feed())
    assert [array.shape for array in outputs] == [(1, 2)]
    parts = engine.take_parts()
    assert {name: len(values) for name, values in parts.items()} == {"h2d": 1, "compute": 1, "d2h": 1}
    assert engine.take_parts()["compute"] == []
    addresses = dict(trt.called("IExecutionContext.set_tensor_address"))
    assert set(addresses) == {"image", "scores"}
    assert all(addresses.values())
    engine.close()
    assert stub.live() == 0


def test_shapes_are_set_once_and_buffers_grow(cuda, stub):
    trt = standin("10.3")
    engine = opened(trt, cuda)
    for rows in (1, 1, 4, 1):
        engine.run(feed(rows))
    assert trt.called("IExecutionContext.set_input_shape") == [("image", (1, 3)), ("image", (4, 3)), ("image", (1, 3))]
    engine.close()
    assert stub.live() == 0


@pytest.mark.parametrize(
    ("name", "count"), [*((name, 0) for name in CUDA_CALLS), *((name, 1) for name in CUDA_CALLS[1:])]
)
def test_a_failure_at_any_cuda_call_is_told_and_leaks_nothing(name, count, cuda, stub):
    trt = standin("10.3")
    stub.stub_fail(name.encode(), count)
    with pytest.raises(DeviceError, match=name):  # noqa: PT012 - opening may fail, or running
        engine = opened(trt, cuda)
        try:
            for _ in range(3):
                engine.run(feed(2))
        finally:
            engine.close()
    stub.stub_fail(None, 0)
    assert stub.live() == 0


def test_a_shape_outside_the_profile_names_the_range(cuda):
    trt = standin("10.3", **{"IExecutionContext.set_input_shape": False})
    engine = opened(trt, cuda)
    with pytest.raises(DeviceError, match=r"\[9, 3\]") as caught:
        engine.run(feed(9))
    assert caught.value.code == "bad-shape"
    assert "[1, 3] to [4, 3]" in caught.value.expected
    engine.close()


def test_a_missing_input_and_a_wrong_type_are_named(cuda):
    engine = opened(standin("10.3"), cuda)
    with pytest.raises(DeviceError, match="no input 'image'"):
        engine.run({})
    with pytest.raises(DeviceError, match="is float64"):
        engine.run({"image": np.zeros((1, 3))})
    engine.close()


def test_int64_feeds_become_int32_where_the_engine_has_int32_and_they_fit(cuda):
    trt = standin("8.6")
    trt.answers["ICudaEngine.get_tensor_dtype"] = lambda name: (
        trt.DataType.INT32 if name == "image" else trt.DataType.FLOAT
    )
    engine = opened(trt, cuda)
    engine.run({"image": np.ones((1, 3), dtype="int64")})
    with pytest.raises(DeviceError, match="is int64"):
        engine.run({"image": np.full((1, 3), 2**40)})
    engine.close()


def test_an_output_whose_shape_depends_on_the_data_is_refused(cuda, stub):
    engine = opened(standin("10.3", **{"IExecutionContext.get_tensor_shape": lambda _: (-1, 2)}), cuda)
    with pytest.raises(DeviceError, match="depends on the data"):
        engine.run(feed())
    engine.close()
    assert stub.live() == 0


def test_no_context_is_out_of_memory(cuda, stub):
    with pytest.raises(DeviceError, match="execution context") as caught:
        opened(standin("10.3", **{"ICudaEngine.create_execution_context": lambda: None}), cuda)
    assert caught.value.code == "out-of-memory"
    assert stub.live() == 0


def test_layers_are_counted_by_type(cuda):
    # Written for this test in the inspector's documented form; not recorded on a board.
    text = (
        '{"Layers": [{"Name": "conv1", "Inputs": [{"Name": "x", "Format/Datatype": "Int8"}]},'
        ' {"Name": "fc", "Inputs": [{"Name": "y", "Format/Datatype": "Row major linear FP16 format"}]}, "plain"]}'
    )
    engine = opened(standin("10.3", **{"EngineInspector.get_engine_information": text}), cuda)
    assert count_types(engine.layers()) == {"tensorrt-int8": 1, "tensorrt-fp16": 1, "tensorrt-other": 1}
    engine.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_times_of_layers_are_heard_and_the_first_inference_is_left_out(version, cuda, stub):
    trt = standin(version)
    engine = opened(trt, cuda)
    assert engine.layer_times() == []
    engine.time_layers()
    ((listener,),) = trt.called("IExecutionContext.profiler")
    assert isinstance(listener, trt.IProfiler)
    for times in ((9.0, 8.0), (0.5, 0.25), (0.5, 0.25)):  # what TensorRT reports, in milliseconds
        listener.report_layer_time("conv1 + relu1", times[0])
        listener.report_layer_time("Reformatting CopyNode for Input Tensor 0 to conv1", times[1])
    first, second = engine.layer_times()
    assert (first["name"], first["time_ns"], first["overhead"]) == ("conv1 + relu1", 500_000.0, False)
    assert (second["time_ns"], second["overhead"]) == (250_000.0, True)
    assert all(row["provider"] == "tensorrt" for row in (first, second))
    engine.close()
