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

_SCALES = (1.0, -1.0, 4.0)
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
        made = torch_models.recall(artifact.entry)
        module, examples = made.module, made.examples
    elif artifact.format == "torchscript":
        from packager.sources.torchscript import load_script

        module = load_script(artifact.path)
    else:
        from packager.sources.pt2 import load_program

        program = load_program(artifact.path)
        module = program.module(check_guards=False)
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
    control flow shows itself, variants of it: floats redrawn at other scales, integers shuffled.
    """
    torch = torch_models.need_torch()
    if job.calibration is not None and job.calibration.kind != RANDOM:
        return calibration_feeds(program, job, _FEEDS)
    generator = torch.Generator().manual_seed(torch_models.SEED + 1)
    variants = [tuple(_variant(one, scale, generator) for one in program.examples) for scale in _SCALES]
    return [program.examples, *variants]


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
