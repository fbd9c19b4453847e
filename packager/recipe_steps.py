"""The ordered steps of a recipe file, each typed: prune, distill, qat, fuse, quantize, convert.

[[steps]]
do = "prune"
method = "structured"
sparsity = 0.5
training = { data = "train.py:batches", epochs = 1 }

[[steps]]
do = "quantize"
precision = "int8"
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Dict, List, Optional, Union  # noqa: UP035 - the codec reads these types

from agent.contract import codec
from agent.contract.errors import ContractError, nearest


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """`data` is file.py:function or an .npz; `loop` one's own training loop (file.py:function), which decides epochs,
    optimizer and the rest by itself; paths as on the command line. `device` is cpu, cuda or auto. `checkpoint` is a file that
    keeps the state after each epoch: a build that was stopped goes on from there.
    """

    data: str
    epochs: int = 1
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    loss: str = "cross_entropy"
    batch: int = 64
    seed: int = 0
    device: str = "cpu"
    loop: str = ""
    checkpoint: str = ""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a step may cost on the samples of `eval`: `max_drop` points (1.0), or `max_drop_relative` percent of the score.
    An empty `metric` is top1 with class labels, agreement without labels.
    """

    eval: str
    max_drop: Optional[float] = None  # noqa: UP045
    max_drop_relative: Optional[float] = None  # noqa: UP045
    metric: str = ""


@dataclasses.dataclass(frozen=True)
class PruneStep:
    """See packager.compress.prune. Without `training` it is one shot, no fine-tuning. `heads` by layer name."""

    do: str
    method: str = "l1-global"
    sparsity: float = 0.5
    schedule: Union[str, List[float]] = "one-shot"  # noqa: UP006, UP007
    steps: int = 1
    layers: List[str] = dataclasses.field(default_factory=list)  # noqa: UP006
    exclude: List[str] = dataclasses.field(default_factory=list)  # noqa: UP006
    heads: Dict[str, int] = dataclasses.field(default_factory=dict)  # noqa: UP006
    round_to: int = 1
    training: Optional[TrainingSettings] = None  # noqa: UP045
    budget: Optional[Budget] = None  # noqa: UP045


@dataclasses.dataclass(frozen=True)
class DistillStep:
    """See packager.compress.distill. `features` and `relations` are layers of the student by layers of the teacher; the
    relation `{"" = ""}` is at the outputs. `response = false` leaves the teacher's outputs aside.
    """

    do: str
    teacher: str
    training: TrainingSettings
    response: bool = True
    temperature: float = 4.0
    alpha: float = 0.7
    features: Dict[str, str] = dataclasses.field(default_factory=dict)  # noqa: UP006
    feature_weight: float = 1.0
    relations: Dict[str, str] = dataclasses.field(default_factory=dict)  # noqa: UP006
    relation_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class QatStep:
    """Training with fake quantisation by file.py:function; the numbers become INT8."""

    do: str
    train: str


@dataclasses.dataclass(frozen=True)
class FuseStep:
    """See packager.compress.fuse. `heads` and `hidden` of 0 are read from the graph; model_type "none" only folds."""

    do: str
    model_type: str = "auto"
    heads: int = 0
    hidden: int = 0


@dataclasses.dataclass(frozen=True)
class QuantizeStep:
    """The fields of a plain recipe."""

    do: str
    precision: str = "int8"
    per_channel: bool = True
    method: str = "minmax"
    percentile: float = 99.999
    weight_type: str = ""
    activation_type: str = ""
    scope: str = ""
    operators: List[str] = dataclasses.field(default_factory=list)  # noqa: UP006
    exclude: List[str] = dataclasses.field(default_factory=list)  # noqa: UP006
    keep_io_types: bool = True


@dataclasses.dataclass(frozen=True)
class ConvertStep:
    """The last step, done in any case: here its choices. `io` is float or int8; `exporter` torch.export or torchscript."""

    do: str
    io: str = ""
    exporter: str = ""


KINDS: dict[str, type[Any]] = {
    "prune": PruneStep,
    "distill": DistillStep,
    "qat": QatStep,
    "fuse": FuseStep,
    "quantize": QuantizeStep,
    "convert": ConvertStep,
}
# What each works on decides the order: modules, then graphs, then numbers. Pruning and distilling may alternate.
_STAGE = {"prune": 0, "distill": 0, "qat": 1, "fuse": 2, "quantize": 3, "convert": 4}
_EXPORTERS = ("", "torch.export", "torchscript")


def typed(step: Mapping[str, Any], where: str = "$.steps", source: str = "") -> Any:
    """One step as its dataclass. Raises ContractError that names the nearest for an unknown kind or option."""
    kind = step.get("do") if isinstance(step, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        near = nearest(str(kind), KINDS)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise ContractError(
            f"{where}.do: unknown step {kind!r}{hint}",
            where=source,
            expected=f"one of: {', '.join(KINDS)}",
            code="step",
        )
    made = codec.decode(KINDS[kind], dict(step), where, source)
    _check(made, where, source)
    return made


def expand(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A recipe file's document with its steps checked, and what its `qat`, `quantize` and `convert` steps say written into
    the plain fields. Raises ContractError.
    """
    rows = data["steps"]
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ContractError("$.steps: expected a list of tables", where=source, expected="[[steps]]", code="wrong-type")
    steps = [typed(row, f"$.steps[{index}]", source) for index, row in enumerate(rows)]
    _check_order([step.do for step in steps], source)
    flat = {key: value for key, value in data.items() if key != "steps"}
    for step in steps:
        fields: dict[str, Any] = {}
        if isinstance(step, QuantizeStep):
            fields = {key: value for key, value in codec.encode(step).items() if key != "do"}
        elif isinstance(step, QatStep):
            fields = {"qat": step.train, "precision": "int8"}
        elif isinstance(step, ConvertStep) and step.io:
            fields = {"io": step.io}
        for key, value in fields.items():
            if key in data and data[key] != value:
                text = f"$.{key}: {data[key]!r}, and the step {step.do} says {value!r}"
                raise ContractError(text, where=source, expected="it in one place", code="twice")
            flat[key] = value
    flat.setdefault("precision", "fp32")
    return {**flat, "steps": [codec.encode(step) for step in steps]}


_PATHS = ("qat", "train", "data", "loop", "eval", "metric", "teacher", "checkpoint")


def without_folders(recipe: Any) -> Any:
    """A recipe's document for the bundle, files by their names only: the same recipe in another folder gives the same
    bundle, and nobody reads in it where its maker keeps things.
    """
    if isinstance(recipe, list):
        return [without_folders(one) for one in recipe]
    if not isinstance(recipe, dict):
        return recipe
    return {
        key: re.split(r"[\\/]", value)[-1] if key in _PATHS and isinstance(value, str) else without_folders(value)
        for key, value in recipe.items()
    }


def of_kind(steps: Sequence[Mapping[str, Any]], *kinds: str) -> list[Any]:
    """The typed steps of these kinds, in order."""
    return [typed(step) for step in steps if step["do"] in kinds]


def _check_order(kinds: Sequence[str], source: str) -> None:
    for sooner, later in zip(kinds, kinds[1:], strict=False):  # noqa: RUF007 - pairs
        if _STAGE[later] < _STAGE[sooner] or (sooner == later and later not in ("prune", "distill")):
            again = "twice in a row" if sooner == later else f"after {sooner}"
            raise ContractError(
                f"$.steps: {later} {again}",
                where=source,
                expected="prune and distill (as often as wanted), then qat, fuse, quantize, convert",
                code="order",
            )


def _check(step: Any, where: str, source: str) -> None:
    if isinstance(step, ConvertStep) and step.exporter not in _EXPORTERS:
        known = ", ".join(one or "(empty)" for one in _EXPORTERS)
        raise ContractError(
            f"{where}.exporter: unknown value {step.exporter!r}",
            where=source,
            expected=f"one of: {known}",
            code="value",
        )
    training = getattr(step, "training", None)
    if training is not None and training.loop and training.checkpoint:
        raise ContractError(
            f"{where}.training: a checkpoint of one's own loop",
            where=source,
            expected="either of the two: checkpoints are written by edgepack's loop",
            fix="let your loop keep its own, or leave `loop` out",
            code="value",
        )
    if isinstance(step, PruneStep):
        shares = step.schedule if isinstance(step.schedule, list) else [step.sparsity]
        for share in shares:
            if not 0 < share < 1:
                raise ContractError(
                    f"{where}: a sparsity of {share:.0%}",
                    where=source,
                    expected="a share above 0 and below 1",
                    fix=f"for {share:g} % write {share / 100:g}" if 1 < share < 100 else "",  # noqa: PLR2004
                    code="schedule",
                )
