"""A PyTorch model of any source format as a live module with example inputs, for the targets that lower modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from agent.contract.manifest import TensorSpec
from packager import torch_models
from packager.bundle.golden import sized
from packager.calibration import RANDOM, random_data

if TYPE_CHECKING:
    from packager.artifact import Artifact
    from packager.protocols import Lowering

_VARIANTS = 3
_FEEDS = 8


@dataclasses.dataclass(frozen=True)
class Program:
    """`module` is in eval mode on the CPU; `examples` are its positional inputs, batch size as the golden inputs have it.

    `kind` is the source format; only of "torch" are the submodules those that the user wrote.
    """

    module: Any
    examples: tuple[Any, ...]
    inputs: tuple[TensorSpec, ...]
    kind: str


def open_program(artifact: Artifact, job: Lowering) -> Program:
    """The module behind an artifact of the format torch, torchscript or pt2. Raises UsageError."""
    specs = tuple(sized(artifact, job.shapes))
    examples: tuple[Any, ...] | None = None
    if artifact.format == "torch":
        halves = torch_models.split_factory(artifact.entry)
        if halves is None:
            raise UsageError(f"not a factory: {artifact.entry!r}", expected="file.py:factory")
        module, examples, _ = torch_models.call_factory(*halves)
    elif artifact.format == "torchscript":
        from packager.sources.torchscript import load_script

        module = load_script(artifact.path)
    else:
        from packager.sources.pt2 import load_program

        program = load_program(artifact.path)
        module = program.module()
        examples = program.example_inputs[0] if program.example_inputs else None
    if examples is None or [list(one.shape) for one in examples] != [list(spec.shape) for spec in specs]:
        examples = _from_calibration(specs, job) or _random(specs)
    return Program(module=module, examples=tuple(examples), inputs=specs, kind=artifact.format)


def calibration_feeds(program: Program, job: Lowering, most: int | None = None) -> list[tuple[Any, ...]]:
    """The calibration samples as positional inputs. Raises UsageError when there are none."""
    if job.calibration is None:
        raise UsageError("INT8 needs calibration data", fix="--calibration DATA", code="no-calibration")
    return [_positional(feed, program.inputs) for feed in job.calibration.feeds(most)]


def check_feeds(program: Program, job: Lowering) -> list[tuple[Any, ...]]:
    """Inputs on which two forms of the model are compared: samples of the calibration data, else the example and, so that
    control flow shows itself, variants of it: floats redrawn at other scales, integers shuffled."""
    torch = torch_models.need_torch()
    if job.calibration is not None and job.calibration.kind != RANDOM:
        return calibration_feeds(program, job, _FEEDS)
    generator = torch.Generator().manual_seed(torch_models.SEED + 1)
    feeds = [program.examples]
    for scale in (1.0, -1.0, 4.0)[:_VARIANTS]:
        feeds.append(tuple(_variant(one, scale, generator) for one in program.examples))
    return feeds


def outputs_of(module: Any, feed: Sequence[Any]) -> list[Any]:
    """The module's output tensors for positional inputs."""
    torch = torch_models.need_torch()
    with torch.no_grad():
        return torch_models.flatten_outputs(module(*[one.clone() for one in feed]))


def worst_cosine(expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> float:
    """The lowest cosine between two lists of outputs, over all samples and float outputs; 1.0 for equal tensors, -1.0
    where shapes or numbers of outputs differ or integers disagree."""
    torch = torch_models.need_torch()
    worst = 1.0
    for want_row, got_row in zip(expected, found, strict=True):
        if len(want_row) != len(got_row):
            return -1.0
        for want, got in zip(want_row, got_row, strict=True):
            if want.shape != got.shape:
                return -1.0
            if torch.equal(want, got):
                continue
            if not want.is_floating_point():
                return -1.0
            left, right = want.double().flatten(), got.double().flatten()
            scale = left.norm() * right.norm()
            worst = min(worst, float(left @ right / scale) if scale > 0 else -1.0)
    return worst


def _positional(feed: Any, specs: Sequence[TensorSpec]) -> tuple[Any, ...]:
    torch = torch_models.need_torch()
    return tuple(torch.from_numpy(feed[spec.name].copy()) for spec in specs)


def _from_calibration(specs: Sequence[TensorSpec], job: Lowering) -> tuple[Any, ...] | None:
    if job.calibration is None or job.calibration.kind == RANDOM:
        return None
    return _positional(next(iter(job.calibration.feeds(1))), specs)


def _random(specs: Sequence[TensorSpec]) -> tuple[Any, ...]:
    return _positional(next(iter(random_data(specs, {}, 1).feeds())), specs)


def _variant(tensor: Any, scale: float, generator: Any) -> Any:
    torch = torch_models.need_torch()
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.dtype) * scale
    flat = tensor.flatten()
    return flat[torch.randperm(flat.numel(), generator=generator)].reshape(tensor.shape)
