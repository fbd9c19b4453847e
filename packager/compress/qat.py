"""Quantisation-aware training: fake quantisation in the graph, the user's own loop or ours, observers frozen and batch norm
folded late, then real integers with the learned ranges.

    prepared = qat.prepare(module, examples, engine="qnnpack")
    qat.train(prepared, batches, loss, epochs=3)        # or any loop of one's own; then qat.finish(prepared)
    qat.save(prepared, "model-qat.pt")

A factory that returns `qat.load(module, examples, "model-qat.pt")` builds for every runtime: each takes the learned ranges
and asks for no calibration data. A recipe with `qat = "train.py:train"` does all of it inside a build.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.compress.quantize.torch_clamps import absorb_clamps, cap_outputs_only, saturates
from packager.compress.quantize.torch_dynamic import use_engine
from packager.compress.quantize.torch_observers import qat_qconfig
from packager.compress.quantize.torch_pads import fold_pads
from packager.torch_trace import legacy_quiet

if TYPE_CHECKING:
    from packager.artifact import Artifact
    from packager.recipe import Recipe

_MARK = torch_models.QAT_ENGINE
# The share of the training after which ranges and batch norm statistics stand still.
_FREEZE_AT = 2 / 3
# Between steps everything is a file: the trained module is a factory again.
_FACTORY = """
import torch

from packager import torch_models
from packager.compress import qat


def trained():
    made = torch_models.call_factory({entry!r})
    examples = torch.load({examples!r}, weights_only=True)
    return qat.load(made.module, examples, {state!r}), examples
"""


def prepare(module: Any, examples: tuple[Any, ...], *, engine: str = "qnnpack", per_channel: bool = True) -> Any:
    """A copy of the module with fake quantisation for `engine` (qnnpack, x86), in training mode.

    Raises ConvertError when the module has no symbolic graph, or no layer that can be quantised.
    """
    torch = torch_models.need_torch()
    from torch.ao.quantization import get_default_qat_qconfig_mapping, quantize_fx

    use_engine(engine)
    with legacy_quiet():
        try:
            graph = torch.fx.symbolic_trace(copy.deepcopy(module).train())
        except Exception as error:
            # Symbolic tracing runs the user's code: anything may come out of it.
            raise ConvertError(
                f"quantisation-aware training needs a symbolic graph of the module: {str(error)[:300]}",
                fix="branch with torch.where in the place of Python's if; or train a part of the module",
                code="not-traceable",
            ) from error
        fold_pads(graph)
        caps = absorb_clamps(graph, keep=not saturates(engine))
        graph.train()
        mapping = get_default_qat_qconfig_mapping(engine)
        plain = qat_qconfig(engine, per_channel=per_channel)
        mapping.set_global(plain)
        for kind in ("Conv1d", "Conv2d", "Conv3d", "Linear", "BatchNorm2d", "ReLU"):
            mapping.set_object_type(getattr(torch.nn, kind), plain)
        for kind in ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"):
            mapping.set_object_type(getattr(torch.nn, kind), qat_qconfig(engine, per_channel=False))
        for name, cap in caps.items():
            mapping.set_module_name(name, qat_qconfig(engine, per_channel=per_channel, cap=cap))
        prepared = quantize_fx.prepare_qat_fx(graph, mapping, examples)
        cap_outputs_only(prepared, caps, plain.activation)
    if not any("FakeQuantize" in type(one).__name__ for one in prepared.modules()):
        raise ConvertError("the module has no layer that can be quantised", code="nothing-to-quantise")
    setattr(prepared, _MARK, engine)
    return prepared


def engine_of(module: Any) -> str | None:
    """The engine that a module was prepared for; None when it was not."""
    found = getattr(module, _MARK, None)
    return None if found is None else str(found)


def train(
    prepared: Any,
    batches: Callable[[], Iterable[tuple[Any, Any]]],
    loss: Callable[[Any, Any], Any],
    *,
    epochs: int = 3,
    learning_rate: float = 1e-4,
    optimizer: Any = None,
    norms_at: float = _FREEZE_AT,
    progress: Callable[[str], None] = lambda _: None,
) -> Any:
    """Trains in place and finishes. `batches()` gives (inputs, labels) for one epoch; inputs are a tensor or a tuple.

    Ranges and batch norm statistics are frozen for the last third, so that the weights settle on what the device computes.
    `norms_at`: the share of the epochs after which batch norm statistics stand still; 0 keeps the float network's own, which
    is right where there are few batches, or data unlike those that it was first trained on.
    """
    torch = torch_models.need_torch()
    from torch.ao.nn.intrinsic.qat import freeze_bn_stats

    prepared.train()
    chosen = optimizer or torch.optim.Adam(prepared.parameters(), lr=learning_rate)
    for epoch in range(epochs):
        if epoch >= epochs * norms_at:
            prepared.apply(freeze_bn_stats)
        if epoch and epoch >= epochs * _FREEZE_AT:
            freeze(prepared)
        total, count = 0.0, 0
        for inputs, labels in batches():
            chosen.zero_grad()
            value = loss(prepared(*(inputs if isinstance(inputs, tuple) else (inputs,))), labels)
            value.backward()
            chosen.step()
            total, count = total + float(value.detach()), count + 1
        if not count:
            raise UsageError("the training data is empty", expected="batches() gives (inputs, labels)", code="empty")
        progress(f"epoch {epoch + 1} of {epochs}: loss {total / count:.4f}")
    return finish(prepared)


def freeze(prepared: Any) -> None:
    """Stops observers and batch norm statistics, in place."""
    from torch.ao.nn.intrinsic.qat import freeze_bn_stats
    from torch.ao.quantization import disable_observer

    prepared.apply(disable_observer)
    prepared.apply(freeze_bn_stats)


def finish(prepared: Any) -> Any:
    """The trained module with everything frozen, in eval mode; raises UsageError when it never saw data."""
    torch = torch_models.need_torch()
    freeze(prepared)
    prepared.eval()
    for parameter in prepared.parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise UsageError("a weight is NaN or infinite after training", fix="lower the learning rate", code="nan")
    return prepared


def save(prepared: Any, path: str | Path) -> None:
    """Writes weights and learned ranges."""
    torch = torch_models.need_torch()
    wide = any("PerChannel" in type(one).__name__ for one in prepared.modules())
    saved = {"engine": engine_of(prepared), "per_channel": wide, "state": prepared.state_dict()}
    torch.save(saved, str(path))


def load(module: Any, examples: tuple[Any, ...], path: str | Path) -> Any:
    """The trained module out of a file of `save`; `module` is the float one that `prepare` was given. Runs no code of the
    file. Raises UsageError when it does not fit.
    """
    torch = torch_models.need_torch()
    import pickle

    try:
        saved = torch.load(str(path), map_location="cpu", weights_only=True)
        prepared = prepare(module, examples, engine=saved["engine"], per_channel=saved["per_channel"])
        prepared.load_state_dict(saved["state"])
    except (OSError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"not the trained state of this module: {str(error)[:400]}",
            where=str(path),
            expected="a file of qat.save for the same module",
            code="qat-state",
        ) from error
    return finish(prepared)


def train_artifact(artifact: Artifact, recipe: Recipe, *, engine: str, workdir: Path) -> str:
    """Prepares the artifact's module, lets the recipe's function train it in place, and writes the result under `workdir`.

    The trained module's factory, as `file.py:factory`. Raises UsageError, ConvertError.
    """
    torch = torch_models.need_torch()
    trainer_at = torch_models.split_factory(recipe.qat)
    if trainer_at is None:
        raise UsageError(f"$.qat: {recipe.qat!r}", expected="file.py:function", code="qat")
    trainer = torch_models.import_named(*trainer_at)
    made = torch_models.recall(artifact.entry)
    examples = made.examples
    if examples is None:
        feeds = [[size if isinstance(size, int) else 1 for size in spec.shape] for spec in artifact.inputs]
        examples = tuple(torch.zeros(shape) for shape in feeds)
    prepared = prepare(made.module, examples, engine=engine, per_channel=recipe.per_channel)
    if any(step["do"] == "prune" for step in recipe.steps):
        from packager.compress.prune.layers import hold_zeros

        hold_zeros(prepared)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            trainer(prepared)
        except Exception as error:
            raise UsageError(f"{trainer_at[1]}() raised {error!r}", where=trainer_at[0], code="qat") from error
    state, kept, code = (workdir / name for name in ("trained.pt", "examples.pt", "trained.py"))
    save(finish(prepared), state)
    torch.save(examples, str(kept))
    text = _FACTORY.format(entry=artifact.entry, examples=str(kept), state=str(state))
    code.write_text(text, encoding="utf-8")
    return f"{code}:trained"
