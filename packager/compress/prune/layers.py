"""Which layers are pruned: names looked up, the nearest told for one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models

_KINDS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear")


def prunable(module: Any, layers: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Any]:
    """Convolutions and linear layers by name: those named (or below a module named) in `layers`, all when it is empty.

    Raises UsageError for a name that does not exist, ConvertError when nothing is left.
    """
    nn = torch_models.need_torch().nn
    kinds = tuple(getattr(nn, kind) for kind in _KINDS)
    every = {name: one for name, one in module.named_modules() if isinstance(one, kinds)}
    for name in (*layers, *exclude):
        named_module(module, name)
    found = {
        name: one for name, one in every.items() if (not layers or within(name, layers)) and not within(name, exclude)
    }
    if not found:
        raise ConvertError(
            "the module has no layer that can be pruned" + (" among those named" if layers or exclude else ""),
            expected="convolutions or linear layers",
            code="nothing-to-prune",
        )
    return found


def named_module(module: Any, name: str) -> Any:
    """The submodule of this name. Raises UsageError with the nearest names."""
    known = dict(module.named_modules())
    known.pop("", None)
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    # The last part may be right where the path is not.
    near += [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2] and one not in near][:3]
    told = ", ".join(repr(one) for one in near) or ", ".join(list(known)[:10]) or "the module has no parts"
    raise UsageError(f"there is no layer {name!r}", expected=f"nearest: {told}" if near else told, code="no-layer")


def within(name: str, places: Sequence[str]) -> bool:
    """Whether `name` is one of these places, or below one."""
    return any(name == place or name.startswith(place + ".") for place in places)


def sparsity(module: Any) -> float:
    """The share of exact zeros among the weights of the prunable layers."""
    zeros = total = 0
    for one in prunable(module).values():
        zeros += int((one.weight == 0).sum())
        total += one.weight.numel()
    return zeros / total


def hold_zeros(module: Any) -> None:
    """Weights that are zero now stay zero in whatever training follows: their gradients are masked."""
    for one in prunable(module).values():
        weight = one.weight
        mask = (weight.detach() != 0).to(weight.dtype)
        if bool((mask == 0).any()):
            weight.register_hook(lambda grad, mask=mask: grad * mask.to(grad.device))
