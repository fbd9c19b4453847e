"""Training data however it comes: `file.py:function` that returns an iterable of batches, or an .npz with `labels`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.contract.errors import UsageError, unknown_name
from packager import torch_models
from packager.calibration import load_numpy

LABELS = "labels"
# The batches of one epoch: inputs as positional tensors, and labels (None where there are none).
Batch = tuple[tuple[Any, ...], Any]
Batches = Callable[[int], Iterable[Batch]]
_PAIR = 2


def load_batches(text: str, inputs: Sequence[str], *, batch: int = 64, seed: int = 0) -> Batches:
    """The data named by `text`. The result is called with the number of the epoch and gives its batches, always the same.

    An .npz holds arrays by input name (first axis = samples) and `labels`; it is cut into batches in an order drawn from
    `seed` and the epoch. A function is called anew for every epoch (with `epoch=` where it takes that), the random numbers
    of torch, numpy and `random` seeded before. Raises UsageError.
    """
    path = Path(text)
    if path.is_file() and path.suffix == ".npz":
        return from_arrays(load_numpy(path), inputs, batch=batch, seed=seed, where=text)
    halves = torch_models.split_factory(text)
    if halves is None:
        raise UsageError(
            "there is no such training data",
            where=text,
            expected="an .npz with one array per input and `labels`, or file.py:function",
            code="no-training-data",
        )
    return from_function(torch_models.import_named(*halves), inputs, where=text)


def from_arrays(
    arrays: Mapping[str, Any], inputs: Sequence[str], *, batch: int = 64, seed: int = 0, where: str = "training data"
) -> Batches:
    """Batches out of arrays by input name and `labels`. Raises UsageError for unknown names and unequal lengths."""
    torch = torch_models.need_torch()
    for name in arrays:
        if name not in inputs and name != LABELS:
            raise unknown_name(f"input in {where}", name, [*inputs, LABELS])
    for name in inputs:
        if name not in arrays:
            raise UsageError(f"the training data lacks the input {name!r}", where=where, code="missing-key")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or not min(counts.values()):
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"the arrays differ in length or are empty: {told}", where=where, code="ragged")
    columns = [torch.from_numpy(arrays[name].copy()) for name in inputs]
    labels = torch.from_numpy(arrays[LABELS].copy()) if LABELS in arrays else None
    count = len(columns[0])

    def epoch_of(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for chosen in torch.randperm(count, generator=generator).split(batch):
            if len(chosen) == 1 and count > 1:
                continue  # batch norm has no variance of one sample
            yield tuple(column[chosen] for column in columns), None if labels is None else labels[chosen]

    return epoch_of


def from_function(function: Callable[..., Any], inputs: Sequence[str], *, where: str = "the function") -> Batches:
    """Batches out of a user's function: each (inputs, labels), inputs alone, or a dict by input name with `labels`."""
    takes_epoch = _takes(function, "epoch")

    def epoch_of(epoch: int) -> Iterator[Batch]:
        try:
            made = function(epoch=epoch) if takes_epoch else function()
            # A function may return another: `batches()` of the qat module's kind.
            rows = made() if callable(made) and not isinstance(made, Iterable) else made
            yield from (as_batch(row, inputs, where) for row in rows)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"the training data's function raised {error!r}",
                where=where,
                expected="an iterable of batches: (inputs, labels), or dicts by input name with `labels`",
                code="function-failed",
            ) from error

    return epoch_of


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature takes nothing of ours
        return False


def as_batch(row: Any, inputs: Sequence[str], where: str = "") -> Batch:
    """One batch in the loop's form. Raises UsageError for what is none."""
    labels = None
    if isinstance(row, Mapping):
        labels = row.get(LABELS)
        missing = [name for name in inputs if name not in row]
        if missing:
            raise UsageError(f"a batch lacks the input {missing[0]!r}", where=where, code="missing-key")
        values: tuple[Any, ...] = tuple(row[name] for name in inputs)
    elif isinstance(row, (tuple, list)) and len(row) == _PAIR:
        first, labels = row
        values = tuple(first) if isinstance(first, (tuple, list)) else (first,)
    else:
        values = (row,)
    if len(values) != len(inputs):
        raise UsageError(
            f"a batch has {len(values)} inputs",
            where=where,
            expected=f"{len(inputs)}: {', '.join(inputs)}",
            code="batch",
        )
    return tuple(_tensor(value, where) for value in values), None if labels is None else _tensor(labels, where)


def _tensor(value: Any, where: str) -> Any:
    torch = torch_models.need_torch()
    if isinstance(value, torch.Tensor):
        return value
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"a batch holds {type(value).__name__}", where=where, expected="tensors or arrays", code="batch"
        ) from error
