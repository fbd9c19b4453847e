"""How many networks pass TensorRT's preflight raw and after edgepack's repairs, and how much of them runs in INT8.

    python benchmarks/tensorrt_preflight.py [MODEL.onnx ...] [--recipes fp32 int8] [--out FILE.json]

Without models, onnx's own nine `light_*` networks are taken (real architectures, weights made up: no accuracy is
measured). The compiler is TensorRT-RTX for SM86, a stand-in: nothing here has run on a Jetson, and no latency is claimed.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from agent.contract import archive
from agent.contract.errors import EdgepackError
from packager.bundle.golden import sized
from packager.calibration import random_data
from packager.pipeline import build
from packager.sources.onnx import Onnx, run_onnx
from packager.tensorrt.preflight import preflight

TARGET = "jetson-orin"


def main():
    import onnx

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    rows = []
    for path in arguments.models or sorted(light.glob("light_*.onnx")):
        rows.append(measure(path, arguments.recipes))
        print(json.dumps(rows[-1]), flush=True)
    for recipe in ("raw", *arguments.recipes):
        passed = sum(row[recipe]["verdict"] == "ok" for row in rows)
        print(f"{recipe}: {passed} of {len(rows)} ok")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(path, recipes):
    told = preflight(path, {}, seconds=300)
    row = {"model": path.stem, "raw": {"verdict": told.verdict, "reason": told.reason[:200]}}
    for recipe in recipes:
        row[recipe] = made(path, recipe)
    return row


def made(path, recipe):
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "m.edgepack"
        options = {"calibration": "random"} if recipe.startswith("int8") else {}
        try:
            built = build(str(path), TARGET, runtime="tensorrt", recipe=recipe, output=bundle, check=False, **options)
        except EdgepackError as error:
            return {"verdict": "rejected", "reason": f"{error.what} ({error.code})"[:300]}
        findings = {one.code: one.message for one in built.manifest.findings}
        return {
            "verdict": findings["tensorrt-preflight"].partition(":")[0],
            "layers": findings.get("tensorrt-layers", ""),
            "repaired": findings.get("repaired", ""),
            "bytes": built.size_bytes,
            "cosine": cosine(path, bundle, Path(folder)),
            "seconds": round(time.perf_counter() - start, 1),
        }


def cosine(path, bundle, folder):
    """Of the lowered model with the original, both without optimisations, on random inputs: the worst output."""
    with archive.BundleReader(bundle) as reader:
        reader.extract(folder / "unpacked")
        lowered = folder / "unpacked" / reader.manifest.model
        names = [one.name for one in reader.manifest.outputs]
    import numpy as np

    artifact = Onnx().open(str(path), {})
    specs = [dataclasses.replace(one) for one in sized(artifact, {})]
    feeds = list(random_data(specs, {}, 2).feeds())
    pairs = zip(run_onnx(path, feeds, names), run_onnx(lowered, feeds, names), strict=True)
    worst = 1.0
    for left, right in pairs:
        for name in names:
            one, other = (np.asarray(values[name], dtype="float64").ravel() for values in (left, right))
            size = np.linalg.norm(one) * np.linalg.norm(other)
            worst = min(worst, float(one @ other / size) if size else 1.0)
    return round(worst, 6)


if __name__ == "__main__":
    main()
