"""TFLite files as they are found in a package (MediaPipe's, Apache-2.0): weights in halves, without their zeros, by an older
schema. What ai-edge-quantizer alone makes of them, and what edgepack does.

    python -m benchmarks.tflite_found CACHE [FILE ...] [--turns 20] [--minutes 3]

CACHE as benchmarks/zoo/make.py fills it. Calibration: 64 crops of photographs of scikit-image, 96 others to score. INT8: the
share of the multiply-adds. Noise: the signal of the outputs over what INT8 adds (mean over the outputs), in dB. Time: LiteRT
with XNNPACK, one thread, beside the file as it is found, in turns in one process.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.contract.archive import BundleReader
from benchmarks import machine
from benchmarks.tflite_parity import race
from benchmarks.zoo.packages import Packages
from packager.accuracy.subject import decibels, noise_of
from packager.compress.quantize.tflite_layers import compute_layers, computed_in_int8
from packager.pipeline import build
from packager.tflite_model import input_names, need, output_names, parse_model, quiet, rename, to_bytes
from packager.tflite_run import run_tflite

FILES = (
    "face_detection/face_detection_short_range",
    "face_landmark/face_landmark",
    "hand_landmark/hand_landmark_lite",
    "iris_landmark/iris_landmark",
    "pose_detection/pose_detection",
)
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "ihc.png",
)


def crops(folder: Path, count: int, side: tuple[int, int], seed: int) -> Any:
    """Parts of photographs, count x height x width x 3, 0 to 1; the first of them, a face, twice as often."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    pictures = [Image.open(folder / name).convert("RGB") for name in (PHOTOGRAPHS[0], *PHOTOGRAPHS)]
    height, width = side
    found = np.empty((count, height, width, 3), np.float32)
    for place in range(count):
        picture = pictures[random.integers(len(pictures))]
        part = random.uniform(0.3, 1) * min(picture.size[0], picture.size[1] * width / height)
        size = int(part), int(part * height / width)
        left, top = (int(random.integers(whole - own + 1)) for whole, own in zip(picture.size, size, strict=True))
        piece = picture.crop((left, top, left + size[0], top + size[1])).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        found[place] = np.asarray(piece, np.float32)[:, :: 1 - 2 * int(random.integers(2))] / 255
    return np.clip(found * random.uniform(0.7, 1.2, (count, 1, 1, 1)), 0, 1).astype(np.float32)


def outputs(path: Path, data: Any) -> dict[str, Any]:
    """Of a file, by the place of each among the outputs: names differ."""
    import numpy as np

    model = need("ai_edge_litert.interpreter").Interpreter(model_path=str(path))
    taken, given = model.get_input_details()[0], model.get_output_details()
    scale, zero = taken["quantization"]
    feeds = data if not scale else np.clip(np.round(data / scale) + zero, -128, 127)
    rows = run_tflite(
        path,
        [{"in": one[None].astype(taken["dtype"])} for one in feeds],
        ["in"],
        [str(place) for place in range(len(given))],
    )
    found = list(rows)
    return {name: np.concatenate([row[name] for row in found]) for name in found[0]}


def stock(source: Path, result: Path, name: str, data: Any) -> None:
    """As its documentation does it; the signature that it asks for is written into the file, all else is left as it is."""
    modules = need("ai_edge_quantizer.quantizer"), need("ai_edge_quantizer.recipe")
    model = need("ai_edge_litert.tools.flatbuffer_utils").read_model(str(source))
    rename(model, input_names(model), output_names(model))
    with quiet():
        quantizer = modules[0].Quantizer(to_bytes(model), modules[1].static_wi8_ai8())
        ranges = quantizer.calibrate({"serving_default": [{name: one[None]} for one in data]})
        result.write_bytes(bytes(quantizer.quantize(ranges).quantized_model))


def ours(source: Path, result: Path, calibration: Path, scored: Path, minutes: float) -> None:
    """With the photographs to score as well, by their cosine with the original."""
    bundle = result.with_suffix(".edgepack")
    built = build(
        str(source),
        "linux-x86-64",
        runtime="tflite",
        recipe="int8",
        calibration=str(calibration),
        eval=str(scored),
        allow_drop=True,
        metric="cosine",
        search_minutes=minutes,
        output=bundle,
    )
    with BundleReader(bundle) as reader:
        result.write_bytes(reader.read(built.manifest.model))


def rows_of(
    name: str, source: Path, data: tuple[Any, Any], args: argparse.Namespace, work: Path
) -> Iterator[list[str]]:
    """The file as it is found, ai-edge-quantizer's, edgepack's."""
    import numpy as np

    details = need("ai_edge_litert.interpreter").Interpreter(model_path=str(source)).get_input_details()[0]
    for label, arrays in zip(("cal", "eval"), data, strict=True):
        np.savez(work / f"{label}.npz", **{details["name"]: arrays})
    wanted = outputs(source, data[1])
    yield [name, "as found", f"{source.stat().st_size / 1e6:.2f}", "0 %", "", "1"]
    for way in ("ai-edge-quantizer", "edgepack"):
        path = work / f"{way}.tflite"
        try:
            if way == "edgepack":
                ours(source, path, work / "cal.npz", work / "eval.npz", args.minutes)
            else:
                stock(source, path, details["name"], data[0])
            noise = decibels(noise_of(wanted, outputs(path, data[1]))[0])
        except Exception as error:  # noqa: BLE001 - a row of its own
            yield [name, way, "", "", "", f"fails: {' '.join(str(error).split())[:90]}"]
            continue
        _, _, ratio, (low, high) = race(path.read_bytes(), source.read_bytes(), args.turns)
        cells = [
            f"{path.stat().st_size / 1e6:.2f}",
            f"{share(path):.0%}",
            f"{noise:.1f}",
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        ]
        yield [name, way, *cells]


def share(path: Path) -> float:
    """Of the multiply-adds, those in INT8."""
    model = parse_model(path.read_bytes())
    pairs = list(zip(compute_layers(model), computed_in_int8(model), strict=True))
    return sum(layer.macs for layer, taken in pairs if taken) / sum(layer.macs for layer, _ in pairs)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("files", nargs="*", default=FILES)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=3.0)
    args = parser.parse_args()
    packages = Packages(args.cache)
    photographs = packages["scikit-image"] / "skimage" / "data"
    print(f"{machine.facts()}; {machine.load()}\n\n    {machine.command()}\n")
    machine.header("file", "way", "MB", "INT8", "dB", "time, beside the file as found")
    for name in args.files:
        source = packages["mediapipe"] / "mediapipe" / "modules" / f"{name}.tflite"
        model = parse_model(source.read_bytes())
        shape = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shape
        side = int(shape[1]), int(shape[2])
        data = crops(photographs, 64, side, 1), crops(photographs, 96, side, 2)
        with tempfile.TemporaryDirectory() as folder:
            for cells in rows_of(name.rpartition("/")[2], source, data, args, Path(folder)):
                machine.row(*cells)


if __name__ == "__main__":
    main()
