"""Whole filters, channels and attention heads removed with Torch-Pruning, so that the exported model is smaller in truth.

Torch-Pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023) finds which layers must shrink together.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.compress.prune import attention
from packager.compress.prune.bound import bound_layers
from packager.compress.prune.layers import named_module, prunable


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

    Of attentions whole heads go: those that attention.find knows, and those given by `heads`, their number by the name of the
    q, k, v (or fused qkv) layers. `left` is what each has after the last step.
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
        bound = bound_layers(module, examples)
        self.ignored = [one for name, one in prunable(module).items() if name not in chosen or one in bound]
        if len(self.ignored) == len(prunable(module)):
            raise ConvertError(
                "no layer is left whose channels may go: the last layers make the outputs, or are added to the inputs",
                expected="a layer between them",
                code="nothing-to-prune",
            )
        counts = attention.wanted(module, heads or {}, layers, exclude)
        self.heads = {name: named_module(module, name) for name in counts}
        self.left: dict[str, int] = {}
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
                num_heads={self.heads[name]: count for name, count in counts.items()},
                prune_num_heads=bool(counts),
                prune_head_dims=not counts,
                head_pruning_ratio=self.goals[-1],
                round_to=round_to if round_to > 1 else None,
            )
        # Its own shares are of the heads that are left, rounded up: over several steps, more would go than was asked for.
        for name, count in counts.items():
            self._pruner.head_pruning_ratio_dict[self.heads[name]] = _head_shares(count, self.goals)

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
        self.left = attention.tell(self.module, self.heads, self._pruner.num_heads.get)
        self.history = self._pruner.pruning_history()
        after = self._run()
        if [one.shape for one in before] != [one.shape for one in after]:
            raise ConvertError(
                "pruning changed the shape of an output",
                expected=str([list(one.shape) for one in before]),
                fix="exclude the layers that make the outputs",
                code="prune-failed",
            )

    def _run(self) -> list[Any]:
        try:
            return torch_models.run_once(self.module, self.examples)
        except ConvertError as error:
            if error.code != "run-failed":
                raise
            known = sorted({name.rpartition(".")[0] for name in self.heads})
            raise ConvertError(
                f"once pruned, {error.what}",
                expected="a forward() that takes widths and numbers of heads from its layers and attributes; "
                f"heads are known in: {', '.join(known) or 'no part of this module'}",
                fix="keep the number of heads in an attribute (num_heads) beside the layers q, k, v or qkv; or name them in "
                'heads = { "attention.q" = 4, ... }; or exclude = [...] the part that counts by itself',
                code="prune-failed",
            ) from error


def _head_shares(count: int, goals: Sequence[float]) -> list[float]:
    """For each step (the first is none) the share of the heads left before it that goes, to be multiplied and rounded up."""
    left = [count, *attention.kept(count, goals)]
    gone = [(before - after, before) for before, after in itertools.pairwise(left)]
    return [0.0, *((some - 0.5) / before if some else 0.0 for some, before in gone)]


def head_counts(module: Any) -> dict[str, dict[str, int]]:
    """The numbers of heads, and their width, that modules carry as attributes, by module name."""
    found = {}
    for name, one in module.named_modules():
        told = {
            key: value
            for key in (*attention.COUNTS, *attention.WIDTHS)
            if type(value := getattr(one, key, None)) is int
        }
        if any(key in attention.COUNTS for key in told):
            found[name] = told
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import sys

    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
