"""Knowledge distillation: a small network learns from a large one's outputs, inner maps, and similarities between samples.

    distill(student, teacher, examples, batches, Distillation(response=Response(temperature=4, alpha=0.7)), fit_with)

Response: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015. Feature: Romero et al., "FitNets",
2015. Relation: Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.compress.prune.layers import named_module
from packager.compress.train import Callback, Loss, Training, first_tensor, fit, named_loss, seeded, weights_digest
from packager.compress.training_data import Batches
from packager.shapes import show


@dataclasses.dataclass(frozen=True)
class Response:
    """The outputs: alpha x T^2 x KL(teacher || student) at `temperature` T, plus (1 - alpha) x the labels' loss."""

    temperature: float = 4.0
    alpha: float = 0.7


@dataclasses.dataclass(frozen=True)
class Feature:
    """The output of one layer of each, by name. Where shapes differ a 1x1 projection learns along; it is thrown away."""

    student: str
    teacher: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Relation:
    """The matrix of cosines between a batch's samples, at one layer of each; empty names: at the outputs."""

    student: str = ""
    teacher: str = ""
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Any combination; without `response` the labels' loss counts in full."""

    response: Response | None = dataclasses.field(default_factory=Response)
    features: Sequence[Feature] = ()
    relations: Sequence[Relation] = ()
    labels: str = "cross_entropy"


def distill(
    student: Any,
    teacher: Any,
    examples: tuple[Any, ...],
    batches: Batches,
    how: Distillation | None = None,
    training: Training | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
) -> list[float]:
    """Trains the student in place; the mean loss of each epoch. The teacher stays as it is.

    Raises UsageError when inputs or outputs do not match, a layer does not exist (the nearest are named), or the options are
    off.
    """
    how, training = how or Distillation(), training or Training()
    check(student, teacher, examples, how)
    with contextlib.ExitStack() as stack:
        ours, theirs = stack.enter_context(_taps(student, how, 0)), stack.enter_context(_taps(teacher, how, 1))
        device = torch_models.need_torch().device("cpu")
        teacher.to(device).eval()
        projections = _projections(student, teacher, examples, how, (ours, theirs), training.seed)
        loss = _loss(teacher, how, ours, theirs, projections)
        return fit(
            student,
            batches,
            loss,
            training,
            callbacks=callbacks,
            checkpoint=checkpoint,
            run=f"{how} {weights_digest(teacher)}",
            also=list(projections.values()),
        )


@contextlib.contextmanager
def own_loop(student: Any, teacher: Any, examples: tuple[Any, ...], how: Distillation) -> Iterator[Loss]:
    """A context in which the distillation's loss is there for one's own loop; projections are not trained by it."""
    check(student, teacher, examples, how)
    with contextlib.ExitStack() as stack:
        ours, theirs = stack.enter_context(_taps(student, how, 0)), stack.enter_context(_taps(teacher, how, 1))
        projections = _projections(student, teacher, examples, how, (ours, theirs), 0)
        yield _loss(teacher.eval(), how, ours, theirs, projections)


def check(
    student: Any,
    teacher: Any,
    examples: tuple[Any, ...],
    how: Distillation,
    *,
    factory: str = "",
    own: tuple[Any, ...] | None = None,
) -> None:
    """Raises UsageError where teacher and student do not fit each other, before anything is trained.

    `factory` and `own` are the teacher's name and its own example inputs, for the message.
    """
    response = how.response
    if response is not None and not (response.temperature > 0 and 0 <= response.alpha <= 1):
        raise UsageError(
            f"temperature {response.temperature}, alpha {response.alpha}",
            expected="a temperature above 0, alpha between 0 and 1",
            code="distill",
        )
    pairs: list[Feature | Relation] = [*how.features, *how.relations]
    for one in pairs:
        for module, name, side in ((student, one.student, "student"), (teacher, one.teacher, "teacher")):
            if not name and isinstance(one, Relation):
                continue
            try:
                named_module(module, name)
            except UsageError as error:
                error.where = side
                raise
    ours, theirs = torch_models.run_once(student, examples), _taught(teacher, examples, factory, own)
    if response is not None and ours[0].shape != theirs[0].shape:
        raise UsageError(
            f"the teacher's output is {list(theirs[0].shape)}, the student's {list(ours[0].shape)}",
            where=factory,
            expected="the same classes in the same order",
            fix="take a teacher of the same task, or distil features or relations only",
            code="teacher-outputs",
        )


def _taught(teacher: Any, examples: tuple[Any, ...], factory: str, own: tuple[Any, ...] | None) -> list[Any]:
    """The teacher's outputs for the student's inputs. Raises UsageError when it does not take them."""
    try:
        return torch_models.run_once(teacher, examples)
    except ConvertError as error:
        if error.code != "run-failed":
            raise
        theirs = f"; its own example inputs are {_told(own)}" if own else ""
        raise UsageError(
            f"the teacher does not take the student's inputs: {error.what.removeprefix('the module does not run: ')}",
            where=factory or "the teacher",
            expected=f"a teacher that takes {_told(examples)}, as the student does{theirs}",
            fix="take a teacher of the same inputs, or let its factory return a module that brings them into the teacher's "
            "shape first (torch.nn.functional.interpolate for pictures)",
            code="teacher-inputs",
        ) from error


def _told(tensors: tuple[Any, ...]) -> str:
    return ", ".join(f"{show(one.shape)} {str(one.dtype).removeprefix('torch.')}" for one in tensors)


@contextlib.contextmanager
def _taps(module: Any, how: Distillation, side: int) -> Iterator[dict[str, Any]]:
    """What the named layers gave in the last run."""
    seen: dict[str, Any] = {}
    pairs: list[Feature | Relation] = [*how.features, *how.relations]
    names = {(one.student, one.teacher)[side] for one in pairs} - {""}

    def catch(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            seen[name] = first_tensor(output)

        return hook

    handles = [named_module(module, name).register_forward_hook(catch(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _projections(
    student: Any,
    teacher: Any,
    examples: tuple[Any, ...],
    how: Distillation,
    taps: tuple[dict[str, Any], dict[str, Any]],
    seed: int,
) -> dict[Feature, Any]:
    """A learned map for each pair of layers whose channels differ: 1x1 convolution for maps, linear for vectors."""
    if not how.features:
        return {}
    nn = torch_models.need_torch().nn
    torch_models.run_once(student, examples)
    torch_models.run_once(teacher, examples)
    made = {}
    with seeded(seed):
        for pair in how.features:
            ours, theirs = taps[0][pair.student], taps[1][pair.teacher]
            if ours.dim() != theirs.dim():
                raise UsageError(
                    f"{pair.student} gives {list(ours.shape)}, {pair.teacher} of the teacher {list(theirs.shape)}",
                    expected="layers whose outputs have as many dimensions",
                    code="feature-shape",
                )
            spatial = ours.dim() == 4  # noqa: PLR2004 - a map: batch, channels, height, width
            axis = 1 if spatial else -1
            if ours.shape[axis] != theirs.shape[axis]:
                sizes = (ours.shape[axis], theirs.shape[axis])
                made[pair] = nn.Conv2d(*sizes, 1, bias=False) if spatial else nn.Linear(*sizes, bias=False)
    return made


def _loss(
    teacher: Any, how: Distillation, ours: dict[str, Any], theirs: dict[str, Any], projections: dict[Feature, Any]
) -> Loss:
    torch = torch_models.need_torch()
    functional = torch.nn.functional
    plain = named_loss(how.labels)

    def loss(outputs: Any, labels: Any, inputs: tuple[Any, ...]) -> Any:
        taught: Any = None
        if how.response is not None or how.features or how.relations:
            teacher.to(inputs[0].device)
            with torch.no_grad():
                taught = first_tensor(teacher(*inputs))
        found = first_tensor(outputs)
        share = 0.0 if how.response is None else how.response.alpha
        total = found.new_zeros(())
        if labels is not None and share < 1:
            total = total + (1 - share) * plain(outputs, labels, inputs)
        if how.response is not None and share > 0:
            heat = how.response.temperature
            total = total + share * heat**2 * functional.kl_div(
                functional.log_softmax(found / heat, dim=-1),
                functional.log_softmax(taught / heat, dim=-1),
                reduction="batchmean",
                log_target=True,
            )
        for pair in how.features:
            total = total + pair.weight * _feature(ours[pair.student], theirs[pair.teacher], projections.get(pair))
        for one in how.relations:
            left, right = ours.get(one.student, found), theirs.get(one.teacher, taught)
            total = total + one.weight * functional.mse_loss(_similarities(left), _similarities(right))
        return total

    return loss


def _feature(ours: Any, theirs: Any, projection: Any) -> Any:
    functional = torch_models.need_torch().nn.functional
    if projection is not None:
        ours = projection(ours)
    if ours.shape != theirs.shape and ours.dim() == 4:  # noqa: PLR2004 - maps of another size
        ours = functional.adaptive_avg_pool2d(ours, theirs.shape[2:])
    return functional.mse_loss(ours, theirs)


def _similarities(values: Any) -> Any:
    flat = torch_models.need_torch().nn.functional.normalize(values.flatten(1), dim=1)
    return flat @ flat.T
