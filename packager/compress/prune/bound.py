"""Layers whose channels cannot go: they make the module's outputs, or are added to its inputs. Read off autograd's graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from packager import torch_models
from packager.compress.prune.layers import prunable

_TOGETHER = ("AddBackward", "SubBackward", "MulBackward", "DivBackward", "MaximumBackward", "MinimumBackward")


def bound_layers(module: Any, examples: tuple[Any, ...]) -> set[Any]:
    """The layers before the outputs, and those whose outputs meet an input, which no layer has changed, value by value."""
    from packager.torch_compare import flatten

    torch = torch_models.need_torch()
    with _graded(module), torch.enable_grad():
        feeds = [one.clone().requires_grad_(one.is_floating_point()) for one in examples]
        roots = [one.grad_fn for one in flatten(module(*feeds)) if one.grad_fn is not None]
        walk = _Walk(module, feeds)
        found = {layer for root in roots for layer in walk.layers_behind(root)}
        return found | walk.layers_beside_inputs(roots)


@contextlib.contextmanager
def _graded(module: Any) -> Iterator[None]:
    """Every parameter has a gradient inside: frozen layers, too, must show in the graph."""
    before = {one: one.requires_grad for one in module.parameters()}
    for one in before:
        one.requires_grad_(True)
    try:
        yield
    finally:
        for one, flag in before.items():
            one.requires_grad_(flag)


class _Walk:
    """Walks from outputs towards inputs; a node with a layer's weight among its inputs is that layer."""

    def __init__(self, module: Any, feeds: list[Any]) -> None:
        self._weights = {id(one.weight): one for one in prunable(module).values()}
        self._feeds = {id(one) for one in feeds}
        self._raw: dict[Any, bool] = {}

    def layers_behind(self, root: Any) -> set[Any]:
        """The nearest layers."""
        found, seen, waiting = set(), set(), [root]
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            layers = self._layers_of(node)
            found |= layers
            if not layers:
                waiting += _next(node)
        return found

    def layers_beside_inputs(self, roots: list[Any]) -> set[Any]:
        """The nearest layers of one side of a sum or product whose other side is an input."""
        found, seen, waiting = set(), set(), list(roots)
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            sides = _next(node)
            waiting += sides
            if node.name().startswith(_TOGETHER) and any(map(self._is_raw, sides)):
                found |= {layer for side in sides if not self._is_raw(side) for layer in self.layers_behind(side)}
        return found

    def _is_raw(self, node: Any) -> bool:
        """Whether an input comes here without passing a layer. By a stack of its own: networks are deeper than Python's."""
        stack = [node]
        while stack:
            one = stack[-1]
            sides = [] if self._layers_of(one) else _next(one)
            open_ = [side for side in sides if side not in self._raw]
            if one not in self._raw and open_:
                stack += open_
                continue
            own = hasattr(one, "variable") and id(one.variable) in self._feeds
            self._raw[one] = own or any(self._raw[side] for side in sides)
            stack.pop()
        return self._raw[node]

    def _layers_of(self, node: Any) -> set[Any]:
        return {self._weights[id(one)] for one in map(_weight_behind, _next(node)) if id(one) in self._weights}


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
