"""The training loop: small enough to read, and to be replaced by one's own.

    history = fit(module, batches, cross_entropy, Training(epochs=3), checkpoint=Path("run.pt"))

Fine-tuning after pruning and distillation both use it. Deterministic by seed on the CPU: a run that was cut off and resumed
from its checkpoint ends with the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from agent.contract.errors import UsageError, unknown_name
from packager import torch_models
from packager.compress.training_data import Batches

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine")
LOSSES = ("cross_entropy", "mse", "binary_cross_entropy")
_SEED_STEP = 1_000_003  # so that seed 0 epoch 1 is not seed 1 epoch 0

# loss(outputs, labels, inputs) of one batch: `outputs` as the module returns them, `inputs` a tuple of tensors.
Loss = Callable[[Any, Any, tuple[Any, ...]], Any]


@dataclasses.dataclass(frozen=True)
class Training:
    """How to train. `device` is a torch device; "auto" takes a GPU where there is one."""

    epochs: int = 3
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "cosine"
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise unknown_name(kind, value, known)
        if self.epochs < 0 or not self.learning_rate > 0 or self.weight_decay < 0:
            raise UsageError(
                f"epochs {self.epochs}, learning rate {self.learning_rate}, weight decay {self.weight_decay}",
                expected="none below zero, a learning rate above it",
                code="training",
            )


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What a callback is told after each epoch: its number (from 1), the mean loss, and the module as it is."""

    number: int
    of: int
    loss: float
    module: Any


class Callback(Protocol):
    """Called after each epoch; returning True ends the training."""

    def __call__(self, epoch: Epoch) -> bool | None:
        """Looks, prints, stores, stops."""


class Trainer(Protocol):
    """What trains a module in place: `fit` with its options bound, or the user's own loop."""

    def __call__(self, module: Any, batches: Batches, loss: Loss) -> Any:
        """Trains `module` in place."""


def fit(
    module: Any,
    batches: Batches,
    loss: Loss,
    training: Training | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    also: Sequence[Any] = (),
    run: str = "",
) -> list[float]:
    """Trains the module in place and leaves it in eval mode on the CPU; the mean loss of each epoch.

    With `checkpoint`, the state is written there after each epoch, and a run whose file is there goes on where it stopped.
    `also` are further modules that learn (projections), `run` what else makes a run another (a teacher). Raises UsageError
    for empty data, a loss that is NaN, or a checkpoint of other options, or of a run that began with other weights.
    """
    how = training or Training()
    torch = torch_models.need_torch()
    device = _device(how.device)
    learning = [module, *also]
    for one in learning:
        one.to(device).train()
    wanted = [value for one in learning for value in one.parameters() if value.requires_grad]
    optimizer = _optimizer(how, wanted)
    begun = hashlib.sha256(run.encode() + weights_digest(*learning).encode()).hexdigest() if checkpoint else ""
    history = _resume(checkpoint, how, begun, learning, optimizer)
    for number in range(len(history) + 1, how.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * _rate(how, number)
        with seeded(how.seed * _SEED_STEP + number):
            mean = _epoch(module, batches(number), loss, optimizer, device)
        history.append(mean)
        if checkpoint is not None:
            _store(checkpoint, how, begun, learning, optimizer, history)
        told = [callback(Epoch(number, how.epochs, mean, module)) for callback in callbacks]
        if any(told):
            break
        module.train()  # a callback may have evaluated it
    for one in learning:
        one.to("cpu").eval()
    if not all(bool(torch.isfinite(value).all()) for value in module.parameters()):
        raise UsageError("a weight is NaN or infinite after training", fix="lower the learning rate", code="nan")
    return history


def _epoch(module: Any, rows: Any, loss: Loss, optimizer: Any, device: Any) -> float:
    total, count = 0.0, 0
    for inputs, labels in rows:
        here = tuple(one.to(device) for one in inputs)
        wanted = None if labels is None else labels.to(device)
        optimizer.zero_grad(set_to_none=True)
        value = loss(module(*here), wanted, here)
        if not math.isfinite(float(value.detach())):
            raise UsageError(
                f"the loss is {float(value.detach())} in batch {count + 1}",
                fix="lower the learning rate; look for NaN in the data",
                code="nan",
            )
        value.backward()
        optimizer.step()
        total, count = total + float(value.detach()), count + 1
    if not count:
        raise UsageError("the training data is empty", expected="one batch at least in every epoch", code="empty")
    return total / count


def trainer(training: Training, callbacks: Sequence[Callback] = (), checkpoint: Path | None = None) -> Trainer:
    """`fit` with its options bound. Each call has a checkpoint of its own: run.pt, run-2.pt, ..."""
    calls = itertools.count(1)

    def run(module: Any, batches: Batches, loss: Loss) -> list[float]:
        number, place = next(calls), checkpoint
        if checkpoint is not None and number > 1:
            place = checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}")
        return fit(module, batches, loss, training, callbacks=callbacks, checkpoint=place)

    return run


def weights_digest(*modules: Any) -> str:
    """The sha256 over all weights and buffers."""
    total = hashlib.sha256()
    for name, value in _states(modules):
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _states(modules: Sequence[Any]) -> list[tuple[str, Any]]:
    return [pair for module in modules for pair in sorted(module.state_dict().items())]


def own_trainer(text: str) -> Trainer:
    """The user's own loop, `file.py:function`, called as function(module, batches, loss); it trains the module in place.

    `batches(epoch)` gives (inputs, labels), inputs a tuple of tensors; `loss(outputs, labels, inputs)` is a scalar tensor.
    Raises UsageError.
    """
    halves = torch_models.split_factory(text)
    if halves is None:
        raise UsageError(f"not a training loop: {text!r}", expected="file.py:function", code="loop")
    function = torch_models.import_named(*halves)

    def run(module: Any, batches: Batches, loss: Loss) -> None:
        with torch_models.user_code(halves[0]):
            try:
                function(module, batches, loss)
            except UsageError:
                raise
            except Exception as error:
                raise UsageError(f"{halves[1]}() raised {error!r}", where=halves[0], code="loop") from error
        module.to("cpu").eval()

    return run


def say_epochs(progress: Callable[[str], None], what: str) -> Callback:
    """A callback that tells each epoch's loss."""

    def tell(epoch: Epoch) -> None:
        progress(f"{what}: epoch {epoch.number} of {epoch.of}, loss {epoch.loss:.4f}")

    return tell


def named_loss(name: str) -> Loss:
    """cross_entropy, mse, binary_cross_entropy, or file.py:function as function(outputs, labels). Raises UsageError."""
    functional = torch_models.need_torch().nn.functional
    halves = torch_models.split_factory(name)
    if halves is not None:
        own = torch_models.import_named(*halves)
        return lambda outputs, labels, _inputs: own(outputs, labels)
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES, fix="name one of these, or file.py:function")
    plain = {
        "cross_entropy": functional.cross_entropy,
        "mse": functional.mse_loss,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    }[name]

    def loss(outputs: Any, labels: Any, _inputs: tuple[Any, ...]) -> Any:
        if labels is None:
            raise UsageError(f"the loss {name} needs labels, and the data has none", code="no-labels")
        return plain(first_tensor(outputs), labels)

    return loss


def first_tensor(outputs: Any) -> Any:
    """The first tensor of what a module returns."""
    from packager.torch_compare import flatten

    return flatten(outputs)[0]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch, numpy and `random` from `seed` inside; as they were outside."""
    import numpy as np

    torch = torch_models.need_torch()
    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - users' functions draw from it
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)  # noqa: NPY002


def _device(name: str) -> Any:
    torch = torch_models.need_torch()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"cannot train on {name!r}: {error}", expected="cpu, cuda or auto", code="device") from error
    return device


def _optimizer(how: Training, parameters: list[Any]) -> Any:
    optim = torch_models.need_torch().optim
    if not parameters:
        raise UsageError("the module has no parameter that can be trained", code="nothing-to-train")
    if how.optimizer == "sgd":
        return optim.SGD(parameters, lr=how.learning_rate, momentum=0.9, weight_decay=how.weight_decay, nesterov=True)
    return optim.Adam(parameters, lr=how.learning_rate, weight_decay=how.weight_decay)


def _rate(how: Training, number: int) -> float:
    if how.schedule == "constant" or how.epochs == 0:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (number - 1) / how.epochs))


def _store(
    path: Path, how: Training, begun: str, learning: Sequence[Any], optimizer: Any, history: list[float]
) -> None:
    torch = torch_models.need_torch()
    state = {
        "begun": begun,
        "training": dataclasses.asdict(how),
        "modules": [one.state_dict() for one in learning],
        "optimizer": optimizer.state_dict(),
        "history": list(history),
    }
    part = path.with_name(path.name + ".part")
    torch.save(state, str(part))
    os.replace(part, path)  # noqa: PTH105 - never a half-written checkpoint


def _resume(checkpoint: Path | None, how: Training, begun: str, learning: Sequence[Any], optimizer: Any) -> list[float]:
    if checkpoint is None or not checkpoint.is_file():
        return []
    import pickle

    torch = torch_models.need_torch()
    try:
        state = torch.load(str(checkpoint), map_location="cpu", weights_only=True)
        theirs = {**state["training"], "epochs": how.epochs, "device": how.device}
        if theirs != dataclasses.asdict(how):
            raise UsageError(
                "the checkpoint is of a run with other options",
                where=str(checkpoint),
                expected=str(dataclasses.asdict(how)),
                fix="delete it to start anew, or train with the options it was made with",
                code="checkpoint",
            )
        if state["begun"] != begun:
            raise UsageError(
                "the checkpoint is of a run that began with other weights, another loss or another teacher",
                where=str(checkpoint),
                fix="delete it to start anew, or name another file",
                code="checkpoint",
            )
        for one, saved in zip(learning, state["modules"], strict=True):
            one.load_state_dict(saved)
        optimizer.load_state_dict(state["optimizer"])
        return [float(value) for value in state["history"]]
    except (RuntimeError, KeyError, ValueError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"not a checkpoint of this training: {str(error)[:300]}",
            where=str(checkpoint),
            fix="delete it to start anew",
            code="checkpoint",
        ) from error
