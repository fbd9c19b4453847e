"""Masks over single weights, by torch.nn.utils.prune: the smallest by magnitude go, per layer or over the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packager.compress.prune.layers import prunable

METHODS = ("l1", "l1-global")


class Masks:
    """Masks on a module's layers, raised step by step, then made permanent. While they last, training keeps the zeros."""

    def __init__(
        self, module: Any, method: str = "l1-global", layers: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        self.layers = prunable(module, layers, exclude)
        self.method = method
        self.share = 0.0

    def raise_to(self, share: float) -> None:
        """Prunes until `share` (0..1) of the weights is zero; what is pruned already stays pruned."""
        from torch.nn.utils import prune

        for one in self.layers.values():
            if hasattr(one, "weight_orig"):
                # torch ranks by `weight`, which it renews in forward() only: the last step of training is not in it yet.
                one.weight = one.weight_orig.detach() * one.weight_mask
        # torch prunes a share of what is left.
        more = (share - self.share) / (1 - self.share)
        if self.method == "l1":
            for one in self.layers.values():
                prune.l1_unstructured(one, "weight", amount=more)
        else:
            places = [(one, "weight") for one in self.layers.values()]
            prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=more)
        self.share = share

    def permanent_state(self, module: Any) -> dict[str, Any]:
        """The state of `module` (which holds the layers) with the masks made permanent: as if there had been none."""
        plain: dict[str, Any] = {}
        state = module.state_dict()
        for name, value in state.items():
            if name.endswith("weight_mask") and f"{name.removesuffix('_mask')}_orig" in state:
                continue
            if name.endswith("weight_orig") and f"{name.removesuffix('_orig')}_mask" in state:
                bare = name.removesuffix("_orig")
                plain[bare] = value * state[f"{bare}_mask"]
            else:
                plain[name] = value
        return plain
