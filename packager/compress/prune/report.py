"""What pruning bought: zeros, parameters, multiply-adds, file size as it is and compressed, and the *measured* latency."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

from packager import torch_models
from packager.artifact import Artifact
from packager.compress.prune.layers import sparsity
from packager.compress.speed import Speed, compare
from packager.onnx_export import export


@dataclasses.dataclass(frozen=True)
class Weight:
    """Numbers of one module. Multiply-adds are of one run on its example inputs, zeros included."""

    sparsity: float
    parameters: int
    macs: int
    file_bytes: int
    compressed_bytes: int


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """Before against after. `speed` was measured on this machine with ONNX Runtime."""

    before: Weight
    after: Weight
    speed: Speed

    @property
    def verdict(self) -> str:
        """In words: was it worth it here?"""
        smaller = 1 - self.after.file_bytes / self.before.file_bytes
        packed = 1 - self.after.compressed_bytes / self.before.compressed_bytes
        size = f"file {smaller:.0%} smaller, compressed {packed:.0%} smaller"
        low, high = self.speed.interval
        if self.speed.verdict == "faster":
            return f"{size}; {self.speed.ratio:.2f}x faster on this machine ({low:.2f} to {high:.2f})"
        told = "this mask buys no speed on this runtime: dense kernels multiply the zeros, too"
        if self.after.macs < self.before.macs:
            told = "fewer multiply-adds, and no measurable speed-up on this machine"
        return f"{size}; {told} ({self.speed.ratio:.2f}x, {low:.2f} to {high:.2f})"

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "before": dataclasses.asdict(self.before),
            "after": dataclasses.asdict(self.after),
            "speed": self.speed.document(),
            "verdict": self.verdict,
        }


def multiply_adds(module: Any, examples: tuple[Any, ...]) -> int:
    """Of convolutions and matrix products in one run, by torch's own counter (it counts two operations for each)."""
    torch = torch_models.need_torch()
    from torch.utils.flop_counter import FlopCounterMode

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch's fused transformer layers count as nothing
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*[one.clone() for one in examples])
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 2


def report(
    original: Any, pruned: Any, examples: tuple[Any, ...], workdir: Path, *, seconds: float = 1.0, threads: int = 1
) -> PruneReport:
    """Exports both to ONNX under `workdir` and measures them beside each other. Raises ConvertError."""
    files = [_exported(one, examples, workdir / f"prune-report-{side}") for side, one in enumerate((original, pruned))]
    names = torch_models.input_names(original, len(examples))
    feed = {name: one.numpy() for name, one in zip(names, examples, strict=True)}
    speed = compare(files[0], files[1], feed, seconds=seconds, threads=threads)
    before, after = (_weight(one, examples, file) for one, file in zip((original, pruned), files, strict=True))
    return PruneReport(before, after, speed)


def _exported(module: Any, examples: tuple[Any, ...], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    inputs = torch_models.specs_of(torch_models.input_names(module, len(examples)), examples)
    tensors = torch_models.run_once(module, examples)
    outputs = torch_models.specs_of(torch_models.output_names(len(tensors), ()), tensors)
    blank = Artifact(format="torch", path=folder, digest="", inputs=inputs, outputs=outputs)
    return export(module, examples, blank, {"max_opset": 18}, folder).path


def _weight(module: Any, examples: tuple[Any, ...], file: Path) -> Weight:
    raw = file.read_bytes()
    return Weight(
        sparsity=sparsity(module),
        parameters=sum(one.numel() for one in module.parameters()),
        macs=multiply_adds(module, examples),
        file_bytes=len(raw),
        compressed_bytes=len(zlib.compress(raw, 6)),
    )
