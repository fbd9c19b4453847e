"""What a study tries, in the recommended order: ONNX, FP16, INT8 dynamic, INT8, pruning, the device's own runtimes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from packager import registry
from packager.profile import Profile

_BASE = "onnxruntime"
NAMES = {"fp32": "float", "fp16": "FP16", "int8-dynamic": "INT8 dynamic", "int8": "INT8"}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """`recipe` is a name or a file that `plan` wrote; `note` stands in the row."""

    label: str
    runtime: str
    recipe: str
    note: str = ""


def plan(
    profile: Profile, workdir: Path, *, train: str | None, epochs: int, sparsity: float, trainable: bool
) -> list[Candidate]:
    """The candidates; the first is the original. Pruning recipes are written under `workdir`."""
    here = [name for name in profile.runtimes if name in registry.target_names()]
    base = _BASE if _BASE in here else profile.default.runtime
    title = registry.target(base).title
    rows = [Candidate(f"{title} float", base, "fp32", "the original, converted")]
    rows += [Candidate(NAMES[one], base, one) for one in ("fp16", "int8-dynamic", "int8")]
    rows += _pruned(base, workdir, train, epochs, sparsity, trainable=trainable)
    for name in here:
        if name == base:
            continue
        own = registry.target(name)
        wanted = [one for one in ("fp32", "fp16", "int8") if one in own.recipes]
        wanted = [one for one in wanted if one != "fp16" or name == "tensorrt"]
        rows += [Candidate(f"{own.title} {NAMES[one]}", name, one) for one in wanted]
    return rows


def _pruned(
    base: str, workdir: Path, train: str | None, epochs: int, sparsity: float, *, trainable: bool
) -> list[Candidate]:
    tuned = train is not None and trainable
    if tuned:
        note = f"pruned in 3 steps, {epochs} epoch{'' if epochs == 1 else 's'} of fine-tuning after each"
    else:
        note = "one shot, no fine-tuning" + ("; an ONNX file cannot be trained" if train and not trainable else "")
    rows = []
    for method, label in (("l1-global", "weights"), ("structured", "channels")):
        lines = ["[[steps]]", 'do = "prune"', f'method = "{method}"', f"sparsity = {sparsity}"]
        if method == "structured":
            lines.append("round_to = 8")
        if tuned:
            lines += ['schedule = "cubic"', "steps = 3"]
            lines.append(f"training = {{ data = {json.dumps(train)}, epochs = {epochs} }}")
        path = workdir / f"pruned-{label}.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        rows.append(Candidate(f"{sparsity:.0%} of {label} pruned", base, str(path), note))
    return rows
