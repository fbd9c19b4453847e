"""Attention heads: found by the names that attention modules use, and made removable one by one.

torch.nn.MultiheadAttention holds q, k and v in one weight as wide as its input, so no head can leave it: it is replaced by
the same computation with a layer for each (`split`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.compress.prune.layers import named_module, within

# Attributes under which attention modules keep their number of heads, and the width of all heads together.
COUNTS = ("num_heads", "n_heads", "num_attention_heads", "heads", "nhead", "n_head")
WIDTHS = ("all_head_size", "inner_dim", "embed_dim", "hidden_size", "d_model", "dim")
# The layers that make heads: one, or three of these names.
_FUSED = ("qkv", "qkv_proj", "to_qkv", "in_proj", "c_attn", "query_key_value", "Wqkv")
_APART = (
    ("q", "k", "v"),
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("to_q", "to_k", "to_v"),
    ("q_lin", "k_lin", "v_lin"),
    ("wq", "wk", "wv"),
    ("w_q", "w_k", "w_v"),
    ("linear_q", "linear_k", "linear_v"),
)


@dataclasses.dataclass(frozen=True)
class Attention:
    """One attention: its module's name, its heads, and the names of the layers that make them (q, k, v, or one for all)."""

    name: str
    heads: int
    layers: tuple[str, ...]


def find(module: Any) -> list[Attention]:
    """The attentions whose heads are known: an attribute that counts them beside layers of the usual names."""
    nn = torch_models.need_torch().nn
    found = []
    for name, one in module.named_modules():
        heads = next((value for key in COUNTS if type(value := getattr(one, key, None)) is int and value > 0), 0)
        linear = {key: child for key, child in one.named_children() if type(child) is nn.Linear}
        for names in (*((key,) for key in _FUSED), *_APART):
            chosen = [linear[key] for key in names if key in linear]
            widths = {child.out_features // (3 if len(names) == 1 else 1) for child in chosen}
            if heads and len(chosen) == len(names) and len(widths) == 1 and widths.pop() % heads == 0:
                found.append(Attention(name, heads, tuple(f"{name}.{key}".lstrip(".") for key in names)))
                break
    return found


def wanted(
    module: Any, given: Mapping[str, int], layers: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, int]:
    """Heads by layer: of every attention that was found among those to be pruned, and those `given`, by the name of an
    attention or of a layer that makes heads. Raises UsageError for a wrong count, ConvertError for what has no heads.
    """
    known = {one.name: one for one in find(module)}
    makers = {layer: one for one in known.values() for layer in one.layers}
    found = {
        layer: one.heads
        for one in known.values()
        if (not layers or within(one.name, layers)) and not within(one.name, exclude)
        for layer in one.layers
    }
    for name, count in given.items():
        of, layer = known.get(name) or makers.get(name), named_module(module, name)
        if of is not None and of.heads != count:
            raise UsageError(
                f"{name} has {of.heads} heads, not {count}", fix=f"write {of.heads}, or leave it out", code="heads"
            )
        if of is None and (not hasattr(layer, "out_features") or count < 1 or layer.out_features % count):
            raise ConvertError(
                f"no attention heads are known in {name!r}",
                expected="heads are found by themselves in: " + (", ".join(known) or "no part of this module"),
                fix="name the linear layers that make q, k and v, each with the number of heads",
                code="heads",
            )
        found |= dict.fromkeys(of.layers if of is not None else (name,), count)
    return found


def splittable(module: Any, layers: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """The names of the MultiheadAttentions to be pruned that can be split."""
    nn = torch_models.need_torch().nn
    return [
        name
        for name, one in module.named_modules()
        if type(one) is nn.MultiheadAttention
        and name
        and one.bias_k is None
        and not one.add_zero_attn
        and (not layers or within(name, layers))
        and not within(name, exclude)
    ]


def split(module: Any, names: Sequence[str]) -> None:
    """Replaces these MultiheadAttentions, in place, by the same with a layer each for q, k and v."""
    for name in names:
        parent, _, key = name.rpartition(".")
        setattr(module.get_submodule(parent), key, _split_class()(module.get_submodule(name)))


@functools.cache
def _split_class() -> Any:
    torch = torch_models.need_torch()
    nn = torch.nn

    class SplitAttention(nn.Module):  # type: ignore[misc,name-defined] # torch is imported late
        """A MultiheadAttention whose heads may be fewer than its input is wide."""

        # What nn.TransformerEncoderLayer asks, so as not to take its fused path.
        _qkv_same_embed_dim = False
        in_proj_bias = None

        def __init__(self, of: Any) -> None:
            super().__init__()
            self.num_heads, self.head_dim = of.num_heads, of.head_dim
            self.dropout, self.batch_first = of.dropout, of.batch_first
            weights = of.in_proj_weight.chunk(3) if of.in_proj_weight is not None else _apart(of)
            biases = (None,) * 3 if of.in_proj_bias is None else of.in_proj_bias.chunk(3)
            for key, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
                setattr(self, key, _linear(weight, bias))
            self.out_proj = _linear(of.out_proj.weight, of.out_proj.bias)
            self.train(of.training)

        def forward(
            self,
            query: Any,
            key: Any,
            value: Any,
            key_padding_mask: Any = None,
            need_weights: bool = True,
            attn_mask: Any = None,
            average_attn_weights: bool = True,
            is_causal: bool = False,
        ) -> Any:
            """As torch.nn.MultiheadAttention."""
            del is_causal
            single = query.dim() == 2  # noqa: PLR2004 - without a batch
            first = self.batch_first or single
            inputs = [one if first else one.transpose(0, 1) for one in (query, key, value)]
            inputs = [one.unsqueeze(0) for one in inputs] if single else inputs
            q, k, v = (self._heads(layer(one)) for layer, one in zip(self._layers(), inputs, strict=True))
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            for mask in (_spread(attn_mask, scores), _padding(key_padding_mask)):
                if mask is not None:
                    scores = scores.masked_fill(mask, -math.inf) if mask.dtype is torch.bool else scores + mask
            weights = nn.functional.dropout(scores.softmax(-1), self.dropout, self.training)
            joined = (weights @ v).transpose(1, 2)
            found = self.out_proj(joined.reshape(joined.shape[0], joined.shape[1], -1))
            found = found.squeeze(0) if single else found if first else found.transpose(0, 1)
            if not need_weights:
                return found, None
            told = weights.mean(1) if average_attn_weights else weights
            return found, told.squeeze(0) if single else told

        def _layers(self) -> tuple[Any, Any, Any]:
            return self.q_proj, self.k_proj, self.v_proj

        def _heads(self, values: Any) -> Any:
            """[batch, length, width] as [batch, heads, length, size]."""
            return values.reshape(values.shape[0], values.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    return SplitAttention


def _apart(of: Any) -> tuple[Any, Any, Any]:
    return of.q_proj_weight, of.k_proj_weight, of.v_proj_weight


def _linear(weight: Any, bias: Any) -> Any:
    nn = torch_models.need_torch().nn
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _spread(mask: Any, scores: Any) -> Any:
    """An attention mask for [batch, heads, length, length]: one for all, or torch's [batch * heads, length, length]."""
    if mask is None or mask.dim() == 2:  # noqa: PLR2004 - one for all
        return mask
    return mask.reshape(scores.shape[0], -1, *mask.shape[1:])


def _padding(mask: Any) -> Any:
    if mask is None:
        return None
    return mask.reshape(-1, 1, 1, mask.shape[-1])


def tell(module: Any, layers: Mapping[str, Any], left: Callable[[Any], int | None]) -> dict[str, int]:
    """Writes into the modules that hold these layers how many heads they have left, and how wide these are together; the
    numbers by the modules' names.
    """
    found = {}
    for name, layer in layers.items():
        heads, place = left(layer), name.rpartition(".")[0]
        one = module.get_submodule(place)
        counts = {key: value for key in COUNTS if type(value := getattr(one, key, None)) is int}
        if heads is None or not counts:
            continue
        before = next(iter(counts.values()))
        if before != heads:
            width = layer.out_features // (3 if name.rpartition(".")[2] in _FUSED else 1)
            wide = width * before // heads
            for key in WIDTHS:
                if type(getattr(one, key, None)) is int and getattr(one, key) == wide:
                    setattr(one, key, width)
            for key in counts:
                setattr(one, key, int(heads))
        found[place] = int(heads)
    return found


def kept(heads: int, shares: Sequence[float]) -> list[int]:
    """How many heads are left after each share: never fewer than the share leaves, and one at least."""
    return [max(1, math.ceil(heads * (1 - share) - 1e-9)) for share in shares]
