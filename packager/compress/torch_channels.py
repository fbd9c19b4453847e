"""Channels of an exported graph that may be scaled: what one layer is divided by, the layers that read it are multiplied with,
and the function stays the same. Channels lie on axis 1.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from packager import torch_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]

BIAS = 2  # its place among the arguments
_GROUPS = 6
_MAP, _ROW = 4, 2  # ranks of tensors that hold channels on axis 1
_SAME = ("relu", "relu_", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "dropout", "clone")
_SHAPES = ("flatten", "view", "reshape", "mean", "squeeze")
_SUMS = ("add", "add_")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer with weights of its own; `deep` one with a filter for each channel."""

    node: Any
    deep: bool

    @property
    def weight(self) -> str:
        """The name of its weights (outputs, inputs, window)."""
        return str(self.node.args[1].target)

    @property
    def bias(self) -> str:
        """The name of its biases; empty where it has none."""
        return str(self.node.args[BIAS].target) if len(held(self.node)) > 1 else ""

    @property
    def in_axis(self) -> int:
        """The axis of the weights that meets the channels which it reads."""
        return 0 if self.deep else 1


@dataclasses.dataclass
class Channels:
    """Nodes whose channels hold the same values but for sums and pools, the layers that make and those that read them; `clips`
    are the clamps from 0 among them, for which scaling is not exact.
    """

    nodes: list[Any]
    makers: list[Layer]
    readers: list[Layer]
    clips: list[Any]


def scalable(graph: Any, shapes: Mapping[str, Sequence[int]]) -> list[Channels]:
    """All channels that have layers on both sides and nothing but ReLU, clamps from 0, pools and sums between. `shapes` are of
    what the nodes give, by their names.
    """
    sets = _Sets(graph, shapes)
    for node in graph.graph.nodes:
        sets.take(node)
    return sets.found()


class _Sets:
    """Which nodes belong together, and which may not be scaled."""

    def __init__(self, graph: Any, shapes: Mapping[str, Sequence[int]]) -> None:
        self._graph, self._shapes = graph, shapes
        uses = [str(one.target) for one in graph.graph.nodes if one.op == "get_attr" for _ in one.users]
        self._shared = {name for name in uses if uses.count(name) > 1}
        self._parent: dict[Any, Any] = {}
        self._fixed: set[Any] = set()
        self._made: list[tuple[Any, Layer]] = []
        self._read: list[tuple[Any, Layer]] = []
        self._clips: list[tuple[Any, Any]] = []

    def take(self, node: Any) -> None:
        """Learns what a node joins, or fixes."""
        layer = self._layer(node)
        if layer is not None:
            self._made.append((node, layer))
            self._read.append((node.args[0], layer))
            return
        joined, clip = self._joined(node)
        for one in joined:
            self._parent[self._root(one)] = self._root(node)
        if clip:
            self._clips.append((node, node))
        self._fixed |= set() if joined else {node, *node.all_input_nodes}

    def found(self) -> list[Channels]:
        """Those that may be scaled, in the order of the graph."""
        fixed = {self._root(node) for node in self._fixed}
        groups: dict[Any, Channels] = {}
        for node in self._graph.graph.nodes:
            if self._root(node) not in fixed:
                groups.setdefault(self._root(node), Channels([], [], [], [])).nodes.append(node)
        for key, side in (("makers", self._made), ("readers", self._read), ("clips", self._clips)):
            for node, one in side:
                if self._root(node) in groups:
                    getattr(groups[self._root(node)], key).append(one)
        return [one for one in groups.values() if one.makers and one.readers]

    def _root(self, node: Any) -> Any:
        while self._parent.setdefault(node, node) is not node:
            node = self._parent[node]
        return node

    def _layer(self, node: Any) -> Layer | None:
        kind, rank = _kind(node), len(self._shapes.get(node.name, ()))
        if (kind, rank) not in (("conv2d", _MAP), ("linear", _ROW)):
            return None
        if any(one.op != "get_attr" or str(one.target) in self._shared for one in held(node)):
            return None
        shape = attribute(self._graph, str(node.args[1].target)).shape
        groups = node.args[_GROUPS] if kind == "conv2d" and len(node.args) > _GROUPS else 1
        deep = groups == shape[0] and shape[1] == 1 and groups > 1
        return Layer(node, deep) if groups == 1 or deep else None

    def _joined(self, node: Any) -> tuple[list[Any], bool]:
        """The inputs whose channels are scaled as the node's own, and whether it is a clamp from 0."""
        kind, given = _kind(node), node.all_input_nodes
        shape = self._shapes.get(node.name, ())
        if len(shape) not in (_MAP, _ROW) or not given:
            return [], False
        if kind in ("hardtanh", "hardtanh_") and list(node.args[1:2]) in ([0], [0.0]):
            return given[:1], True
        if kind in _SAME and len(given) == 1:
            return given, False
        if kind in _SHAPES and len(given) == 1:
            return (given, False) if self._keeps(node, kind, given[0]) else ([], False)
        same = len(given) == 2 and all(self._shapes.get(one.name) == shape for one in given)  # noqa: PLR2004 - both terms
        return (given, False) if kind in _SUMS and same and len(node.args) == 2 and not node.kwargs else ([], False)  # noqa: PLR2004

    def _keeps(self, node: Any, kind: str, source: Any) -> bool:
        """Whether the channels stay what they are: a mean over places, or (N, C, 1, 1) in another rank."""
        before, after = self._shapes.get(source.name, ()), self._shapes[node.name]
        if kind == "mean":
            axes = node.args[1] if len(node.args) > 1 else None
            return len(before) == _MAP and axes is not None and sorted(axis % _MAP for axis in axes) == [2, 3]
        return len(before) in (_MAP, _ROW) and before[1] == after[1] == math.prod(before[1:]) == math.prod(after[1:])


def _kind(node: Any) -> str:
    """The operator's name, without its overload; empty for what is none of ATen's."""
    return str(node.target).split(".")[1] if node.op == "call_function" and str(node.target).startswith("aten.") else ""


def held(node: Any) -> list[Any]:
    """A layer's weight and, where it has one, its bias."""
    return [one for one in node.args[1 : BIAS + 1] if one is not None]


class Arrays:
    """The layers' weights and biases, to be changed and written back."""

    def __init__(self, graph: Any, groups: Sequence[Channels]) -> None:
        self._graph = graph
        layers = [one for group in groups for one in (*group.makers, *group.readers)]
        names = {name for one in layers for name in (one.weight, one.bias) if name}
        self._arrays = {name: attribute(graph, name).detach().numpy().copy() for name in names}

    def rows(self, layer: Layer, axis: int) -> Array:
        """The weights with one row for each place on the axis: (channels, others, window)."""
        import numpy as np

        values = self._arrays[layer.weight]
        rows: Array = np.moveaxis(values, axis, 0)
        return rows.reshape(len(rows), 1 if layer.deep else rows.shape[1], -1)

    def rescale(self, group: Channels, scale: Array) -> None:
        """Divides what the makers give by `scale`, and multiplies the readers' weights with it."""
        for one in group.makers:
            self._multiply(one, 0, 1 / scale)
            if one.bias:
                self._arrays[one.bias] = self._arrays[one.bias] / scale
        for one in group.readers:
            self._multiply(one, one.in_axis, scale)

    def _multiply(self, layer: Layer, axis: int, factor: Array) -> None:
        values = self._arrays[layer.weight]
        self._arrays[layer.weight] = values * factor.reshape([-1 if at == axis else 1 for at in range(values.ndim)])

    def write(self) -> None:
        """Puts them into the graph's module."""
        torch = torch_models.need_torch()
        for name, array in self._arrays.items():
            _set(self._graph, name, torch.from_numpy(array.astype("float32")))


def values_of(graph: Any, feeds: Sequence[Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """What the graph's nodes give for each sample, by their names: tensors only."""
    torch = torch_models.need_torch()
    base: Any = torch.fx.Interpreter

    class Seeing(base):  # type: ignore[misc] # the base is known at run time only
        def run_node(self, n: Any) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor) and n.op == "call_function":
                # An operator in place changes what was seen before it.
                seen[n.name] = value.clone()
            return value

    running = Seeing(graph)
    for feed in feeds:
        seen: dict[str, Any] = {}
        with torch.no_grad():
            running.run(*[one.clone() for one in feed])
        yield seen


def attribute(graph: Any, name: str) -> Any:
    """A parameter or buffer of the graph's module."""
    place, _, leaf = name.rpartition(".")
    return getattr(graph.get_submodule(place), leaf)


def _set(graph: Any, name: str, value: Any) -> None:
    torch = torch_models.need_torch()
    place, _, leaf = name.rpartition(".")
    owner = graph.get_submodule(place)
    kept = getattr(owner, leaf)
    setattr(
        owner, leaf, torch.nn.Parameter(value, requires_grad=False) if isinstance(kept, torch.nn.Parameter) else value
    )
