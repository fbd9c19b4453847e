"""The generated C computes what TensorFlow Lite Micro computes, to the last bit: on the host, and on emulated boards."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from agent.contract.errors import DeviceError, UsageError
from packager.device.device import Device
from packager.micro.board import BOARDS, COMPILER, EMULATOR
from packager.micro.fixed_point import quantize_multiplier
from packager.micro.plain_c import can_write, write_plain_c
from packager.micro.tflm import run_micro
from packager.micro.tflm_sources import resolver_method
from packager.pipeline import build
from packager.results.document import report_document
from packager.sources.tflite import Tflite
from packager.tflite_model import quantization_of, read_model
from tests.tflite_models import averaging, classifier, needs_tflite, samples

pytestmark = [*needs_tflite, pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")]
boards = pytest.mark.skipif(not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason="no Cortex-M tools")


@pytest.fixture(params=[classifier, averaging], ids=["classifier", "averaging"])
def bundle(request, tmp_path):
    (tmp_path / "net.tflite").write_bytes(request.param())
    np.savez(tmp_path / "cal.npz", image=samples())
    output = tmp_path / "net.edgepack"
    return build(str(tmp_path / "net.tflite"), "cortex-m4", calibration=str(tmp_path / "cal.npz"), output=output)


@pytest.fixture
def model(bundle, tmp_path):
    with BundleReader(bundle.bundle) as reader:
        (tmp_path / "model.tflite").write_bytes(reader.read(bundle.manifest.model))
    return tmp_path / "model.tflite"


def test_bit_for_bit_with_tensorflow_lite_micro(model, tmp_path):
    graph = read_model(model)
    files, facts = write_plain_c(graph)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    library = tmp_path / "model.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", library, tmp_path / "model.c"], check=True)
    code = ctypes.CDLL(str(library))
    code.model_input.restype = code.model_output.restype = ctypes.c_void_p
    artifact = Tflite().open(str(model), {})
    source, target = artifact.inputs[0], artifact.outputs[0]
    rng = np.random.default_rng(7)
    inputs = [rng.integers(-128, 128, source.shape).astype("int8") for _ in range(50)]
    arena, rows = run_micro(artifact, [{source.name: one} for one in inputs])
    scale = quantization_of(graph)[target.name]
    for one, row in zip(inputs, rows, strict=True):
        ctypes.memmove(code.model_input(), one.tobytes(), one.nbytes)
        code.model_run()
        found = np.frombuffer(ctypes.string_at(code.model_output(), row[target.name].size), "int8")
        wanted = np.round(row[target.name].ravel() / scale["scale"]) + scale["zero_point"]
        assert found.tolist() == wanted.astype("int8").tolist()
    assert facts["arena_bytes"] <= arena


def test_bundle_says_that_it_fits_and_brings_sources(bundle):
    told = next(finding for finding in bundle.manifest.findings if finding.code == "fits")
    assert f"{bundle.manifest.facts['arena_bytes']:,} of 196,608 bytes of RAM" in told.message
    assert {"plain-c/model.c", "plain-c/model.h", "plain-c/kernels.h"} <= set(bundle.manifest.files)
    assert {"tflm/model_data.cc", "tflm/op_resolver.h", "tflm/main.cc"} <= set(bundle.manifest.files)


def test_sources_for_xtensa_are_said_not_to_be_compiled(bundle, tmp_path):
    assert "not-compiled" not in [finding.code for finding in bundle.manifest.findings]
    calibration, output = str(tmp_path / "cal.npz"), tmp_path / "esp.edgepack"
    built = build(str(tmp_path / "net.tflite"), "esp32-s3", calibration=calibration, output=output)
    assert "not-compiled" in [finding.code for finding in built.manifest.findings]
    with BundleReader(built.bundle) as reader:
        assert b"Xtensa" in reader.read("tflm/main.cc")


@boards
def test_model_array_compiles_for_cortex_m(bundle, tmp_path):
    with BundleReader(bundle.bundle) as reader:
        for name in ("model_data.cc", "model_data.h", "model_settings.h"):
            (tmp_path / name).write_bytes(reader.read(f"tflm/{name}"))
    argv = [COMPILER, "-mcpu=cortex-m4", "-mthumb", "-std=c++17", "-fsyntax-only", "-x", "c++"]
    for name in ("model_data.cc", "model_settings.h"):
        subprocess.run([*argv, tmp_path / name], check=True)


@boards
@pytest.mark.device
@pytest.mark.parametrize("board", sorted(BOARDS))
def test_emulated_board_is_right_and_counts_instructions(bundle, board):
    reports = [Device(f"qemu:{board}").bench(bundle.bundle) for _ in range(2)]
    assert reports[0].parity.verdict == "pass"
    first, second = (report_document(report, board)["latency"] for report in reports)
    assert first["unit"] == "instructions"
    assert "p50_ms" not in first
    assert first["samples_instructions"] == second["samples_instructions"]
    told = next(finding for finding in reports[0].findings if finding.code == "mcu-memory")
    assert "stack" in told.message


def test_unknown_board_is_answered_with_the_known_ones(bundle):
    with pytest.raises(UsageError) as error:
        Device("qemu:cortex-m44").bench(bundle.bundle)
    assert "cortex-m4" in str(error.value)


def test_nothing_is_pushed_to_an_emulated_board(bundle):
    with pytest.raises(DeviceError) as error:
        Device("qemu:cortex-m4").push(bundle.bundle)
    assert error.value.code == "no-agent"


def test_operator_without_plain_c_is_named(tmp_path):
    from tests.tflite_models import Graph, dense

    g = Graph()
    image = g.tensor("image", [1, 6])
    out = g.op("LOGISTIC", [dense(g, image, "hidden", 6, 4)], [g.tensor("out", [1, 4])])
    (tmp_path / "m.tflite").write_bytes(g.raw([image], [out]))
    assert "LOGISTIC" in can_write(read_model(tmp_path / "m.tflite"))


def test_names_of_the_op_resolver():
    assert resolver_method("CONV_2D") == "AddConv2D"
    assert resolver_method("DEPTHWISE_CONV_2D") == "AddDepthwiseConv2D"
    assert resolver_method("FULLY_CONNECTED") == "AddFullyConnected"
    assert resolver_method("BATCH_MATMUL") == "AddBatchMatMul"


@pytest.mark.parametrize("real", [0.5, 0.75, 1.0, 3.0, 1e-3, 0.0])
def test_multipliers_stand_for_their_numbers(real):
    multiplier, shift = quantize_multiplier(real)
    assert multiplier / 2**31 * 2.0**shift == pytest.approx(real, rel=1e-9)
