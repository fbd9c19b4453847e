"""Evaluation sets that a device cannot take."""

from __future__ import annotations

import numpy as np

from packager import demo_data
from tests.faults.device.test_storage import disk

__all__ = ["disk"]


def test_an_eval_set_larger_than_the_device_s_disk(disk, board, bundle, refused):
    device = board("kitchen", root=f"{disk(10)}/edgepack")
    said = refused(4, device, "bench", bundle, "kitchen", "--eval", demo_data.eval_path())
    assert "the evaluation set does not fit on the device" in said
    assert "MB are needed" in said
    assert "evaluate on fewer samples" in said
    assert list((device.root / "data").iterdir()) == [], "nothing of it was sent"


def test_an_eval_set_without_labels(board, bundle, refused, tmp_path):
    with np.load(demo_data.eval_path()) as data:
        np.savez(tmp_path / "x.npz", image=data["image"][:20])
    said = refused(2, board("kitchen"), "bench", bundle, "kitchen", "--eval", tmp_path / "x.npz")
    assert "needs labels" in said
