"""The form of a case: a folder with a model, its data, and how it is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

TOP1 = """\
def score(outputs, labels):
    (values,) = outputs.values()
    return float((values.reshape(len(labels), -1).argmax(1) == labels).mean())
"""


class Case:
    """A folder being filled; `close` writes case.json, which marks it as complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def save(self, kind: str, **arrays: Any) -> None:
        """cal, eval or train: arrays by input name, and `labels`; the first axis is the sample."""
        import numpy as np

        np.savez_compressed(self.folder / f"{kind}.npz", **arrays)

    def text(self, name: str, content: str) -> None:
        """metric.py."""
        (self.folder / name).write_text(content, encoding="utf-8")

    def model(self, file: Path) -> None:
        """An ONNX, TFLite or Keras file, as it is."""
        shutil.copyfile(file, self.folder / f"model{file.suffix.replace('hdf5', 'h5')}")

    def network(self, source: ModuleType, net: Any) -> None:
        """A file of benchmarks/zoo/networks as model.py, and the state of this module of it as weights.pt."""
        import torch

        assert source.__file__ is not None
        shutil.copyfile(source.__file__, self.folder / "model.py")
        torch.save(net.state_dict(), self.folder / "weights.pt")

    def close(self, **facts: object) -> None:
        """What the metric is, where the case comes from, under which licence, and why it is here."""
        told = json.dumps({"name": self.folder.name, **facts}, indent=2)
        (self.folder / "case.json").write_text(told, encoding="utf-8")
