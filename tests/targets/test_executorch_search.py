"""The search for INT8 within a budget, on ExecuTorch: layers are submodules, and those left out stay in float."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("executorch", reason="needs the executorch extra")
pytestmark = [pytest.mark.executorch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError  # noqa: E402 - after the skip
from packager import executorch_lower, pipeline  # noqa: E402

NETS = Path(__file__).parent / "nets.py"


def test_budget_that_all_int8_misses_leaves_layers_in_float(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    written, write = [], executorch_lower.write
    monkeypatch.setattr(executorch_lower, "write", lambda *given: written.append(given) or write(*given))
    source = pipeline.find_source(f"{NETS}:clamped")
    (spec,) = source.open(f"{NETS}:clamped", {"shapes": {}, "output_names": ()}).inputs
    images = np.random.default_rng(0).standard_normal((24, *spec.shape[1:])).astype(np.float32)
    np.savez(tmp_path / "some.npz", **{spec.name: images})
    built = pipeline.build(
        f"{NETS}:clamped",
        "linux-arm64",
        runtime="executorch",
        recipe="int8",
        calibration=str(tmp_path / "some.npz"),
        eval=str(tmp_path / "some.npz"),
        metric="cosine",
        max_drop=0.0,
        allow_drop=True,
        output=tmp_path / "n.edgepack",
    )
    facts, left = built.manifest.facts, built.manifest.recipe["exclude"]
    steps = [one for one in facts["search"] if "score" in one]
    assert steps[0]["int8_share"]["macs"] == 1.0
    assert set(left) <= {"first", "second", "head"}
    assert left
    assert 0 < facts["int8_share"]["macs"] < 1
    assert facts["accuracy"]["bundle"] > steps[0]["score"]
    assert {one["step"] for one in facts["search"]} >= {"clipped ranges (MSE)", "bias correction"}
    assert len(written) <= len(steps)  # noise costs no lowering, and the best candidate is not lowered again


def test_smoothing_with_one_scale_for_all_channels_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text('precision = "int8"\nsmooth = true\nper_channel = false\n')
    with pytest.raises(ConvertError, match="need weights with a scale per channel"):
        pipeline.build(
            f"{NETS}:clamped",
            "linux-arm64",
            runtime="executorch",
            recipe=str(tmp_path / "r.toml"),
            calibration="random",
            output=tmp_path / "n.edgepack",
        )
    assert not (tmp_path / "n.edgepack").exists()
