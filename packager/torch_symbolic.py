"""A module as a graph of its own layers (torch.fx). Where plain symbolic tracing fails because Python reads a shape
(`int(x.shape[2])`), it is traced again with the values of the example inputs beside the symbols: shapes, types and
numbers of dimensions are then the examples' own, as they are in a TorchScript trace.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from packager import torch_models
from packager.torch_compare import outputs_of, worst_cosine

_SAME = 0.99999
# What a tensor can be asked without looking at its numbers.
_ASKED = ("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout")
_CALLED = ("size", "dim", "numel", "ndimension", "is_floating_point", "stride", "is_contiguous")


def symbolic(module: Any, examples: tuple[Any, ...], feeds: Sequence[Sequence[Any]]) -> Any:
    """A copy of the module, in eval mode, as a torch.fx.GraphModule; with values, it must agree on `feeds` and is for modules
    with batch norms: these fold into their convolutions in a graph only. Raises whatever the user's code raises.
    """
    torch = torch_models.need_torch()
    inner = copy.deepcopy(module).eval()
    try:
        return torch.fx.symbolic_trace(inner)
    except Exception as plain:
        if not any(type(one).__name__.startswith("BatchNorm") for one in inner.modules()):
            raise
        try:
            graph = _with_values(inner, examples)
            same = worst_cosine([outputs_of(inner, one) for one in feeds], [outputs_of(graph, one) for one in feeds])
        except Exception:  # noqa: BLE001 - symbolic tracing runs the user's code; its first complaint is the plainer one
            raise plain from None
        if same < _SAME:
            raise
        return graph


def _with_values(module: Any, examples: tuple[Any, ...]) -> Any:
    torch = torch_models.need_torch()
    tracer = _tracer(torch)([one.clone() for one in examples])
    with torch.no_grad():
        graph = tracer.trace(module)
    return torch.fx.GraphModule(tracer.root, graph)


def _tracer(torch: Any) -> Any:
    """The class of a tracer that computes every node on the examples while it records it."""
    proxy_class = _proxy(torch)

    class ValueTracer(torch.fx.Tracer):  # type: ignore[misc] # torch is not seen by the type checker
        def __init__(self, examples: list[Any]) -> None:
            super().__init__()
            self.left = examples
            self.values: dict[Any, Any] = {}
            self.computing = False

        def proxy(self, node: Any) -> Any:
            return proxy_class(node, self)

        def create_node(self, *args: Any, **kwargs: Any) -> Any:
            node = super().create_node(*args, **kwargs)
            self.computing = True
            try:
                self.values[node] = self.value_of(node)
            finally:
                self.computing = False
            return node

        def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
            return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

        def call_module(self, m: Any, forward: Any, args: Any, kwargs: Any) -> Any:
            return forward(*args, **kwargs) if self.computing else super().call_module(m, forward, args, kwargs)

        def value_of(self, node: Any) -> Any:
            if node.op == "placeholder":
                return self.left.pop(0) if self.left else (node.args[0] if node.args else None)
            return _computed(torch, node, self.root, self.values)

        def to_bool(self, obj: Any) -> bool:
            value = self.values[obj.node]
            return super().to_bool(obj) if isinstance(value, torch.Tensor) else bool(value)

        def iter(self, obj: Any) -> Iterator[Any]:
            value = self.values[obj.node]
            if isinstance(value, torch.Tensor) and not value.dim():
                return super().iter(obj)  # type: ignore[no-any-return] # it raises
            return iter([obj[index] for index in range(len(value))])

    return ValueTracer


def _computed(torch: Any, node: Any, root: Any, values: dict[Any, Any]) -> Any:
    """What a node gives for the values of the nodes before it."""
    args = torch.fx.node.map_arg(node.args, lambda one: values[one])
    kwargs = torch.fx.node.map_arg(node.kwargs, lambda one: values[one])
    if node.op == "get_attr":
        found = root
        for part in node.target.split("."):
            found = getattr(found, part)
        return found
    if node.op == "call_module":
        return root.get_submodule(node.target)(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    return node.target(*args, **kwargs) if node.op == "call_function" else None


def _proxy(torch: Any) -> Any:
    class ValueProxy(torch.fx.Proxy):  # type: ignore[misc] # as above
        def __getattr__(self, name: str) -> Any:
            value = self.tracer.values.get(self.node)
            if isinstance(value, torch.Tensor) and name in (*_ASKED, *_CALLED):
                return getattr(value, name)
            return super().__getattr__(name)

        def __len__(self) -> int:
            return len(self.tracer.values[self.node])

        def __index__(self) -> int:
            return int(self._number())

        def __int__(self) -> int:
            return int(self._number())

        def __float__(self) -> float:
            return float(self._number())

        def _number(self) -> Any:
            value = self.tracer.values[self.node]
            if isinstance(value, torch.Tensor):
                raise torch.fx.proxy.TraceError("a tensor's number decides what is computed")
            return value

    return ValueProxy
