"""How many networks pass TensorRT's preflight raw and after edgepack's repairs, how much of them runs in INT8, and whether
the lowered model still computes the original.

    python benchmarks/preflight.py [--zoo CASES] [--only bert,light_resnet50] [--recipes fp32 int8] [--out FILE.json]

Taken are onnx's own `light_*` networks (real architectures, weights made up), twenty small `transformers`, and with --zoo
the cases there that have a model.onnx or a model.py. Raw is the model's own ONNX (a factory's plain export) before any of
edgepack's steps, its free dimensions set to 1, against the operator table of the target's TensorRT and by NVIDIA's parser
and builder. Agreement is the cosine between original and lowered model in onnxruntime
with optimisations off. The compiler is TensorRT-RTX for SM86, a stand-in: nothing here has run on a Jetson or any GPU, and
no latency is claimed.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.artifact import Artifact

TARGET = "jetson-orin"
VERSION = (10, 3)  # its TensorRT
HERE = Path(__file__).parent


def entries(zoo: Path | None) -> dict[str, tuple[str, str]]:
    """By name: the model as edgepack names it, and where its calibration data come from."""
    import sys

    import onnx

    sys.path.insert(0, str(HERE))
    import architectures

    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    found = {path.stem: (str(path), "random") for path in sorted(light.glob("light_*.onnx"))}
    code = HERE / "architectures.py"
    found |= {name: (f"{code}:{name}", f"{code}:{name}_samples") for name in architectures.ARCHITECTURES}
    for case in sorted(zoo.iterdir()) if zoo is not None else []:
        if (case / "model.onnx").exists():
            found[case.name] = (str(case / "model.onnx"), str(case / "cal.npz"))
        elif (case / "model.py").exists():
            found[case.name] = (f"{case / 'model.py'}:build", str(case / "cal.npz"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--recipes", nargs="*", default=["fp32", "int8"])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    known = entries(asked.zoo)
    rows = []
    for name in asked.only.split(",") if asked.only else known:
        rows.append(measure(name, *known[name], asked.recipes))
        print(json.dumps(rows[-1]), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows, asked.recipes))


def table(rows: list[dict[str, Any]], recipes: list[str]) -> str:
    """One line a network, and the shares."""
    lines = ["| network | raw | " + " | ".join(f"{one} | {one}: INT8 | {one}: cosine" for one in recipes) + " |"]
    lines.append("|---" * (2 + 3 * len(recipes)) + "|")
    for row in rows:
        cells = [row["network"], row["raw"]["verdict"]]
        for recipe in recipes:
            one = row[recipe]
            cells += [one["verdict"], one.get("coverage", ""), str(one.get("cosine", ""))]
        lines.append("| " + " | ".join(cells) + " |")
    for recipe in ("raw", *recipes):
        passed = sum(row[recipe]["verdict"] == "ok" for row in rows)
        lines.append(f"{recipe}: {passed} of {len(rows)} ok")
    return "\n".join(lines)


def measure(name: str, entry: str, data: str, recipes: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        row: dict[str, Any] = {"network": name}
        try:
            artifact, bare = raw(entry, Path(folder))
        except Exception as error:  # noqa: BLE001 - a benchmark's row says what failed and goes on
            return {"network": name, "raw": failed(error), **{one: {"verdict": "no-export"} for one in recipes}}
        from packager.onnx_model import load_model
        from packager.tensorrt import rules
        from packager.tensorrt.preflight import preflight

        # First edgepack's table of what this TensorRT's parser takes: the stand-in takes more than TensorRT 10.3 does.
        refused = rules.rejected(rules.check(load_model(bare), VERSION, {}))
        if refused:
            row["raw"] = {"verdict": "rejected", "reason": "; ".join(map(str, refused))[:300]}
        else:
            told = preflight(bare, {}, seconds=300)
            row["raw"] = {"verdict": told.verdict, "reason": told.reason[:300]}
        for recipe in recipes:
            try:
                row[recipe] = made(entry, data, recipe, artifact, Path(folder))
            except Exception as error:  # noqa: BLE001 - as above
                row[recipe] = failed(error)
        return row


def failed(error: Exception) -> dict[str, Any]:
    return {"verdict": "rejected", "reason": f"{getattr(error, 'what', error)} ({getattr(error, 'code', '')})"[:400]}


def raw(entry: str, folder: Path) -> tuple[Artifact, Path]:
    """The original as an ONNX artifact, and its bytes for the parser: free dimensions 1, nothing else touched."""
    from packager import registry
    from packager.onnx_model import fix_shapes, load_model, save_model

    if entry.endswith(".onnx"):
        artifact = registry.source("onnx").open(entry, {})
    else:
        from packager.convert.onnx_from_torch import OnnxFromTorch

        source = registry.source("torch").open(entry, {})
        artifact = OnnxFromTorch().convert(source, {"shapes": {}}, folder)
    free = {
        spec.name: tuple(size if isinstance(size, int) else 1 for size in spec.shape)
        for spec in artifact.inputs
        if not all(isinstance(size, int) for size in spec.shape)
    }
    if not free:
        return artifact, artifact.path
    path = folder / "raw.onnx"
    save_model(fix_shapes(load_model(artifact.path), free), path)
    return artifact, path


def made(entry: str, data: str, recipe: str, original: Artifact, folder: Path) -> dict[str, Any]:
    from agent.contract import archive
    from packager.pipeline import build

    start = time.perf_counter()
    shapes = sizes(original, data)
    bundle = folder / f"{recipe}.edgepack"
    built = build(
        entry,
        TARGET,
        runtime="tensorrt",
        recipe=recipe,
        output=bundle,
        check=False,
        calibration=data if recipe.startswith("int8") else None,
        shapes=tuple(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items()),
    )
    found = {one.code: one.message for one in built.manifest.findings}
    layers = found.get("tensorrt-layers", "")
    taken = re.search(r"(\d+ of \d+) convolutions", layers)
    place = folder / recipe
    with archive.BundleReader(bundle) as reader:
        reader.extract(place)
    return {
        "verdict": found["tensorrt-preflight"].partition(":")[0],
        "layers": layers,
        "coverage": taken[1] if taken else "",
        "repaired": found.get("repaired", ""),
        "bytes": built.size_bytes,
        "cosine": cosine(original, shapes, place / built.manifest.model),
        "seconds": round(time.perf_counter() - start, 1),
    }


def sizes(original: Artifact, data: str) -> dict[str, tuple[int, ...]]:
    """One sample's shape for each input with more than a free batch: that of the calibration data, else 1 where it is free."""
    import numpy as np

    free = [spec for spec in original.inputs if any(not isinstance(size, int) for size in spec.shape[1:])]
    if not data.endswith(".npz"):
        return {spec.name: tuple(size if isinstance(size, int) else 1 for size in spec.shape) for spec in free}
    with np.load(data) as arrays:
        return {spec.name: (1, *arrays[spec.name].shape[1:]) for spec in free}


def cosine(original: Artifact, shapes: dict[str, tuple[int, ...]], lowered: Path) -> float:
    """Of the lowered model with the original, both without optimisations, on random inputs: the worst output."""
    import numpy as np

    from packager.bundle.golden import sized
    from packager.calibration import random_data
    from packager.sources.onnx import run_onnx

    names = [one.name for one in original.outputs]
    feeds = list(random_data(list(sized(original, shapes)), {}, 2).feeds())
    worst = 1.0
    for left, right in zip(run_onnx(original.path, feeds, names), run_onnx(lowered, feeds, names), strict=True):
        for name in names:
            one, other = (np.asarray(values[name], dtype="float64").ravel() for values in (left, right))
            size = np.linalg.norm(one) * np.linalg.norm(other)
            worst = min(worst, float(one @ other / size) if size else 1.0)
    return round(worst, 4)


if __name__ == "__main__":
    main()
