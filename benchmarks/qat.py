"""Quantisation-aware training beside post-training INT8, from the same float weights, in each runtime's own kernels.

    python benchmarks/qat.py CASES [CASE ...] [--samples 4000] [--epochs 3] [--test 2000] [--runtime tflite ...] [--per-tensor]

CASES holds folders with model.py (`build`), weights.pt, train.npz and eval.npz (arrays by input name, and `labels`), cal.npz
and metric.py. A network is trained once (with --per-tensor twice: with a scale per channel, and with one for all); the
trained state is then built for every runtime. Accuracy is what
`edgepack build --eval` finds with the bundle's own runtime on the host. Needs the `torch` extra; `tflite` and
`executorch` for their rows. One thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

RUNTIMES = ("pytorch_lite", "executorch", "onnxruntime", "tflite")
POST_TRAINING = ("int8", "int8-per-tensor")
FACTORY = """
import sys
sys.path.insert(0, {folder!r})
from packager import torch_models
from packager.compress import qat

def trained():
    made = torch_models.call_factory({entry!r})
    return qat.load(made.module, made.examples, {state!r}), made.examples
"""


def train(case: Path, asked: argparse.Namespace, folder: Path, *, per_channel: bool = True) -> str:
    """The entry of a factory that gives the network trained with quantisation."""
    import numpy as np
    import torch

    from packager import torch_models
    from packager.compress import qat

    made = torch_models.call_factory(f"{case / 'model.py'}:build")
    with np.load(case / "train.npz") as data:
        (name,) = [key for key in data.files if key != "labels"]
        images, labels = (torch.from_numpy(data[key][: asked.samples].copy()) for key in (name, "labels"))
    generator = torch.Generator().manual_seed(1)

    def batches() -> Any:
        for chosen in torch.randperm(len(images), generator=generator).split(64):
            yield images[chosen], labels[chosen]

    torch.manual_seed(0)
    prepared = qat.prepare(made.module, made.examples, engine="qnnpack", per_channel=per_channel)
    qat.train(
        prepared,
        batches,
        torch.nn.functional.cross_entropy,
        epochs=asked.epochs,
        learning_rate=asked.rate,
        norms_at=asked.norms_at,
        progress=print,
    )
    label = f"{case.name}-{'channel' if per_channel else 'tensor'}"
    state, code = folder / f"{label}.pt", folder / f"{label.replace('-', '_')}_trained.py"
    qat.save(prepared, state)
    here = str(Path(__file__).parent)
    entry = f"{case / 'model.py'}:build"
    code.write_text(FACTORY.format(folder=here, entry=entry, state=str(state)), encoding="utf-8")
    return f"{code}:trained"


def tested(case: Path, count: int, folder: Path) -> Path:
    """The first samples of the case's own test set."""
    import numpy as np

    path = folder / f"{case.name}-eval.npz"
    with np.load(case / "eval.npz") as data:
        np.savez(path, **{key: data[key][:count] for key in data.files})
    return path


def row(case: Path, entry: str, runtime: str, recipe: str, test: Path, folder: Path) -> dict[str, Any]:
    """What a build says of itself; an error's first line where it fails."""
    from agent.contract.errors import EdgepackError
    from packager.pipeline import build

    output = folder / f"{Path(entry.partition(':')[0]).stem}-{case.name}-{runtime}-{recipe}.edgepack"
    learned = entry.endswith("trained")
    try:
        built = build(
            entry,
            "linux-arm64",
            runtime=runtime,
            recipe=recipe,
            calibration=None if learned else str(case / "cal.npz"),
            eval=str(test),
            metric=f"{case / 'metric.py'}:score",
            allow_drop=True,
            search_minutes=0.0,
            output=output,
        )
    except EdgepackError as error:
        return {"error": f"{error.what[:120]} ({error.code})"}
    told = built.manifest.facts["accuracy"]
    return {"score": told["bundle"], "n": told["n"], "bytes": built.manifest.files[built.manifest.model].size}


def float_score(case: Path, test: Path) -> float:
    """Of the float network itself, in torch."""
    import numpy as np
    import torch

    from packager import torch_models

    made = torch_models.call_factory(f"{case / 'model.py'}:build")
    score = torch_models.import_named(str(case / "metric.py"), "score")
    with np.load(test) as data, torch.no_grad():
        (name,) = [key for key in data.files if key != "labels"]
        found = made.module(torch.from_numpy(data[name].copy())).numpy()
        return float(score({"output": found}, data["labels"]))


def main() -> None:
    """Prints a table; a line of JSON for each row while it runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("names", nargs="*", default=["fashion-cnn", "fashion-dscnn"])
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--rate", type=float, default=1e-4, help="the learning rate")
    parser.add_argument(
        "--norms-at", type=float, default=2 / 3, help="the share of epochs after which batch norms stand still"
    )
    parser.add_argument("--per-tensor", action="store_true")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    table = []
    with tempfile.TemporaryDirectory(prefix="edgepack-qat-") as name:
        folder = Path(name)
        for case in (asked.cases / one for one in asked.names):
            test = tested(case, asked.test, folder)
            before = float_score(case, test)
            start = time.monotonic()
            learned = {train(case, asked, folder): "QAT, per channel"}
            if asked.per_tensor:
                learned[train(case, asked, folder, per_channel=False)] = "QAT, per tensor"
            print(f"{case.name}: float {before:.4f}; trained in {time.monotonic() - start:.0f} s", flush=True)
            plain = f"{case / 'model.py'}:build"
            for runtime in asked.runtime or RUNTIMES:
                for entry, recipe in [*((plain, one) for one in POST_TRAINING), *((one, "int8") for one in learned)]:
                    found = row(case, entry, runtime, recipe, test, folder)
                    label = learned.get(entry, recipe)
                    print(json.dumps({"case": case.name, "runtime": runtime, "what": label, **found}), flush=True)
                    told = found.get("error") or f"{found['score']:.4f} | {(found['score'] - before) * 100:+.2f}"
                    table.append(f"| {case.name} | {runtime} | {label} | {told} | {found.get('bytes', '')} |")
    print("| network | runtime | INT8 | accuracy | points against float | model bytes |\n|---|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
