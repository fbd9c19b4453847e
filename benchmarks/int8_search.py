"""The mixed-precision search against a plain bisection over a ranked list: evaluations, INT8 kept, and time by layers.

    python -m benchmarks.int8_search [--layers 8 16 32 64 128] [--minutes 20]

The networks are made: residual blocks of two convolutions whose channels between have ranges from 1 to 300 in every third
block, behind an ELU (which no scale of a channel passes). Labels are the network's own answers, a tenth of them wrong.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from packager.accuracy import gate
from packager.accuracy.ladder import first_enough, floating, ranked
from packager.accuracy.search import Search
from packager.pipeline import build

SAMPLES = 400
_CHANNELS, _SIZE, _CLASSES = 16, 12, 10
_SPREAD = 300.0


class Bisection(Search):
    """The plain way: layers ranked by what each costs alone, the count in float bisected for the budget."""

    def _mix(self, base: Any, cured: Any) -> Any:
        del base
        told = self.sensitivities(cured, self._end)
        names = [one.layer.name for one in ranked(told)]
        first_enough(len(names), lambda place: self.attempt(*floating(cured, names[: place + 1])).safe)
        return told


def network(path: Path, layers: int) -> None:
    """A classifier of this many convolutions, and a Gemm."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    draw = np.random.default_rng(layers)
    nodes, constants = [], {}

    def conv(given: str, made: str, values: Any) -> None:
        constants[f"{made}_w"] = values.astype(np.float32)
        nodes.append(helper.make_node("Conv", [given, f"{made}_w"], [made], name=made, pads=[1, 1, 1, 1]))

    def values(inputs: int) -> Any:
        return draw.standard_normal((_CHANNELS, inputs, 3, 3)) * math.sqrt(1 / (9 * inputs))

    conv("image", "stem", values(1))
    last = "stem"
    for block in range((layers - 1) // 2):
        wide = np.geomspace(1, _SPREAD, _CHANNELS) if block % 3 == 1 else np.ones(_CHANNELS)
        conv(last, f"a{block}", values(_CHANNELS) * wide[:, None, None, None])
        nodes.append(helper.make_node("Elu", [f"a{block}"], [f"r{block}"], alpha=0.1))
        conv(f"r{block}", f"b{block}", 0.5 * values(_CHANNELS) / wide[None, :, None, None])
        nodes.append(helper.make_node("Add", [last, f"b{block}"], [f"s{block}"]))
        last = f"s{block}"
    constants["head"] = draw.standard_normal((_CHANNELS, _CLASSES)).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["scores"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", 1, ["n", 1, _SIZE, _SIZE])],
        [helper.make_tensor_value_info("scores", 1, ["n", _CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def sets(folder: Path) -> None:
    """cal.npz, eval.npz and test.npz."""
    import numpy as np
    import onnxruntime

    draw = np.random.default_rng(0)
    images = draw.standard_normal((2 * SAMPLES + 64, 1, _SIZE, _SIZE))
    images = (images + draw.normal(0, 1.5, (len(images), 1, 1, 1))).astype(np.float32)
    scores = onnxruntime.InferenceSession(folder / "net.onnx").run(None, {"image": images})[0]
    labels = scores.argmax(1)
    labels = np.where(draw.random(len(labels)) < 0.1, (labels + 1) % _CLASSES, labels)
    np.savez(folder / "cal.npz", image=images[:64])
    for name, part in (("eval", slice(64, 64 + SAMPLES)), ("test", slice(64 + SAMPLES, None))):
        np.savez(folder / f"{name}.npz", image=images[part], labels=labels[part])


def measure(folder: Path, kind: type[Search], minutes: float) -> dict[str, Any]:
    """One build with this search, from nothing."""
    import os

    os.environ["XDG_CACHE_HOME"] = str(folder / kind.__name__)
    module: Any = gate
    module.Search = kind
    start, cpu = time.monotonic(), time.process_time()
    built = build(
        str(folder / "net.onnx"),
        "linux-x86-64",
        recipe="int8",
        calibration=str(folder / "cal.npz"),
        eval=str(folder / "eval.npz"),
        test=str(folder / "test.npz"),
        search_minutes=minutes,
        allow_drop=True,
        output=folder / "out.edgepack",
    )
    facts = built.manifest.facts
    return {
        "scored": sum("score" in step for step in facts["search"]),
        "share": facts["int8_share"]["macs"],
        "float": len(built.manifest.recipe["exclude"]),
        "blind": facts["search"][0]["drop_points"],
        "drop": facts["accuracy"]["drop_points"],
        "interval": facts["accuracy"]["drop_interval"],
        "seconds": time.monotonic() - start,
        "cpu": time.process_time() - cpu,
    }


def main() -> None:
    """Prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--minutes", type=float, default=20.0)
    options = parser.parse_args()
    heads = (
        "layers",
        "search",
        "blind loses",
        "points lost (95 %)",
        "INT8 mult-adds",
        "float",
        "scored",
        "times",
        "s, clock / CPU",
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for layers in options.layers:
        with tempfile.TemporaryDirectory(prefix="edgepack-search-") as place:
            network(Path(place) / "net.onnx", layers)
            sets(Path(place))
            plain = 1
            for kind, words in ((Bisection, "bisection"), (Search, "edgepack")):
                one = measure(Path(place), kind, options.minutes)
                low, high = one["interval"]
                plain = one["scored"] if kind is Bisection else plain
                print(
                    f"| {layers} | {words} | {one['blind']:+.1f} | {one['drop']:+.1f} ({low:+.1f} to {high:+.1f}) | "
                    f"{one['share']:.0%} | {one['float']} | {one['scored']} | {one['scored'] / plain:.1f}x | "
                    f"{one['seconds']:.0f} / {one['cpu']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
