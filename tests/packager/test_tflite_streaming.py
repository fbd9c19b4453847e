"""A model with a state: the golden vectors are one sequence, on the host, on the device, and in TFLite Micro."""

import numpy as np

from agent.contract.archive import BundleReader
from packager.device.device import Device
from packager.micro.tflm import run_micro
from packager.micro.tflm_sources import tflm_sources
from packager.pipeline import build
from packager.sources.tflite import Tflite
from tests.tflite_models import needs_tflite, running_sum

pytestmark = needs_tflite


def test_golden_sequence_is_the_same_on_the_device(tmp_path):
    path = tmp_path / "sum.tflite"
    path.write_bytes(running_sum())
    np.savez(tmp_path / "cal.npz", chunk=np.arange(1, 17, dtype=np.float32)[:, None] * np.ones((16, 4), np.float32))
    built = build(
        str(path),
        "linux-x86-64",
        runtime="tflite",
        recipe="fp32",
        calibration=str(tmp_path / "cal.npz"),
        output=tmp_path / "sum.edgepack",
    )
    with BundleReader(built.bundle) as reader:
        (tmp_path / "out").mkdir()
        reader.extract(tmp_path / "out")
    ins, outs = (np.load(tmp_path / f"out/golden/{side}_0.npy") for side in ("input", "output"))
    assert np.allclose(outs, np.cumsum(ins, axis=0))
    with Device("local") as device:
        report = device.bench(built.bundle, runs=3, rounds=1, warmup_runs=1, warmup_seconds=0.0)
    assert report.parity.verdict == "pass"


def test_tflite_micro_keeps_the_state_and_its_arena_holds_it(tmp_path):
    path = tmp_path / "sum.tflite"
    path.write_bytes(running_sum())
    artifact = Tflite().open(str(path), {})
    arena, rows = run_micro(artifact, [{"chunk": np.full((1, 4), value, np.float32)} for value in (1, 2, 3)])
    assert [row["total"][0, 0] for row in rows] == [1, 3, 6]
    assert 500 < arena < 20_000


def test_sources_of_a_model_with_a_state_make_its_variables():
    main = tflm_sources(b"TFL3", {"VAR_HANDLE": 6, "ADD": 1}, 1000, {})["main.cc"].decode()
    assert "MicroResourceVariables::Create(allocator, 6)" in main
    assert "resolver, allocator, variables);" in main
    assert "MicroResourceVariables" not in tflm_sources(b"TFL3", {"ADD": 1}, 1000, {})["main.cc"].decode()
