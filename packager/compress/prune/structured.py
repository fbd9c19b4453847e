"""Whole filters, channels and attention heads removed with Torch-Pruning, so that the exported model is smaller in truth.

Torch-Pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023) finds which layers must shrink together.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.compress.prune.layers import named_module, prunable

# Attributes under which attention modules keep their number of heads.
_HEADS = ("num_heads", "n_heads", "num_attention_heads", "heads", "nhead")


def need_torch_pruning() -> Any:
    """The torch_pruning module. Raises UsageError that says how to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("torch_pruning")
    except ImportError as error:
        raise UsageError(
            f"structured pruning needs Torch-Pruning: {error}",
            fix="pip install 'edgepack[prune]'",
            code="no-torch-pruning",
        ) from error


class Channels:
    """Removes channels of a module step by step, in place. `history` can be replayed on the module as it was before.

    `heads` gives the number of attention heads by the name of the q, k, v (or fused qkv) layers: then whole heads go there.
    """

    def __init__(
        self,
        module: Any,
        examples: tuple[Any, ...],
        goals: Sequence[float],
        *,
        layers: Sequence[str] = (),
        exclude: Sequence[str] = (),
        heads: Mapping[str, int] | None = None,
        round_to: int = 1,
        whole_network: bool = False,
    ) -> None:
        tp = need_torch_pruning()
        self.module, self.examples = module, examples
        self.goals = list(goals)
        chosen = prunable(module, layers, exclude)
        last = output_layers(module, examples)
        self.ignored = [one for name, one in prunable(module).items() if name not in chosen or one in last]
        if len(self.ignored) == len(prunable(module)):
            raise ConvertError(
                "no layer is left whose channels may go: the last layers make the outputs",
                expected="a layer before them",
                code="nothing-to-prune",
            )
        self.heads = {named_module(module, name): count for name, count in (heads or {}).items()}
        self.history: list[Any] = []
        self._step = 0
        with _quiet():
            self._pruner = tp.pruner.BasePruner(
                module,
                example_inputs=examples,
                importance=tp.importance.GroupMagnitudeImportance(p=1),
                global_pruning=whole_network,
                pruning_ratio=self.goals[-1],
                iterative_steps=len(self.goals),
                iterative_pruning_ratio_scheduler=lambda _ratio, steps: [0.0, *self.goals][: steps + 1],
                ignored_layers=self.ignored,
                num_heads=dict(self.heads),
                prune_num_heads=bool(self.heads),
                prune_head_dims=not self.heads,
                head_pruning_ratio=self.goals[-1],
                round_to=round_to if round_to > 1 else None,
            )

    def raise_to(self, share: float) -> None:
        """Takes the next step of the goals: `share` of the channels is gone after it. Raises ConvertError."""
        del share  # the goals were given to the pruner; they come in order
        self._step += 1
        before = torch_models.run_once(self.module, self.examples)
        try:
            with _quiet():
                self._pruner.step()
        except Exception as error:
            # Torch-Pruning runs the user's module under autograd: anything may come out of it.
            raise ConvertError(
                f"Torch-Pruning failed: {str(error)[:400] or repr(error)}",
                fix="exclude the layer it names, or take method l1-global",
                code="prune-failed",
            ) from error
        self._tell_heads()
        self.history = self._pruner.pruning_history()
        after = torch_models.run_once(self.module, self.examples)
        if [one.shape for one in before] != [one.shape for one in after]:
            raise ConvertError(
                "pruning changed the shape of an output",
                expected=str([list(one.shape) for one in before]),
                fix="exclude the layers that make the outputs",
                code="prune-failed",
            )

    def _tell_heads(self) -> None:
        for layer in self.heads:
            left = self._pruner.num_heads.get(layer)
            if left is None:
                continue
            for one in self.module.modules():
                if any(child is layer for child in one.children()):
                    for name in _HEADS:
                        if isinstance(getattr(one, name, None), int):
                            setattr(one, name, int(left))


def head_counts(module: Any) -> dict[str, dict[str, int]]:
    """The numbers of heads that modules carry as attributes, by module name."""
    found = {}
    for name, one in module.named_modules():
        counts = {key: value for key in _HEADS if type(value := getattr(one, key, None)) is int}
        if counts:
            found[name] = counts
    return found


def replay(
    module: Any, examples: tuple[Any, ...], history: Sequence[Any], heads: Mapping[str, Mapping[str, int]]
) -> None:
    """Shrinks a fresh copy of the module, in place, as it was shrunk before."""
    tp = need_torch_pruning()
    with _quiet():
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=examples)
        graph.load_pruning_history(list(history))
    for name, counts in heads.items():
        for key, value in counts.items():
            setattr(module.get_submodule(name), key, value)


def output_layers(module: Any, examples: tuple[Any, ...]) -> set[Any]:
    """The layers whose channels are the module's outputs: found by walking back from the outputs through autograd's graph."""
    from packager.torch_compare import flatten

    torch = torch_models.need_torch()
    weights = {id(one.weight): one for one in prunable(module).values()}
    before = {one: one.requires_grad for one in module.parameters()}
    for one in before:
        one.requires_grad_(True)
    try:
        with torch.enable_grad():
            feeds = [one.clone().requires_grad_(one.is_floating_point()) for one in examples]
            waiting = [one.grad_fn for one in flatten(module(*feeds)) if one.grad_fn is not None]
    finally:
        for one, flag in before.items():
            one.requires_grad_(flag)
    found, seen = set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        layers = {weights[id(one)] for one in map(_weight_behind, _next(node)) if id(one) in weights}
        found |= layers
        if not layers:
            waiting += _next(node)
    return found


def _next(node: Any) -> list[Any]:
    return [one for one, _ in node.next_functions if one is not None]


def _weight_behind(node: Any) -> Any:
    """The parameter that a chain of views (a transposed weight) begins with; None where it is no chain."""
    for _ in range(4):
        if hasattr(node, "variable"):
            return node.variable
        following = _next(node)
        if len(following) != 1:
            return None
        node = following[0]
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import sys

    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
