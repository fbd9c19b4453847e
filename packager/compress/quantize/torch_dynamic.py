"""Dynamic INT8 for PyTorch modules: weights of Linear, LSTM and GRU as integers, activation ranges measured at run time."""

from __future__ import annotations

import copy
import dataclasses
import io
from typing import Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, Finding
from packager import torch_models
from packager.torch_trace import legacy_quiet

LAYERS = ("Linear", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell")


@dataclasses.dataclass(frozen=True)
class DynamicResult:
    """The quantised copy, the number of layers by kind, and the state's size before and after, in bytes."""

    module: Any
    layers: dict[str, int]
    before_bytes: int
    after_bytes: int

    def finding(self) -> Finding:
        """What it bought."""
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(self.layers.items()))
        share = self.after_bytes / self.before_bytes
        text = f"INT8 weights in {told}: {self.before_bytes} -> {self.after_bytes} bytes ({share:.0%})"
        return Finding("dynamic-int8", INFO, text, "")


def quantize_dynamic(
    module: Any, *, engine: str = "qnnpack", per_channel: bool = True, exclude: tuple[str, ...] = ()
) -> DynamicResult:
    """A copy of the module with its Linear, LSTM and GRU layers quantised; `exclude` names submodules that stay float.

    Linear weights get a scale per channel with `per_channel`; recurrent ones are per tensor, as their kernels want it.
    Raises ConvertError when nothing can be quantised or an excluded name is not there.
    """
    torch = torch_models.need_torch()
    import torch.ao.quantization as ao

    named = dict(module.named_modules())
    unknown = [name for name in exclude if name not in named]
    if unknown:
        raise ConvertError(
            f"the module has no submodule {unknown[0]!r}", fix="see module.named_modules()", code="exclude"
        )
    chosen: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for name, layer in named.items():
        kind = type(layer).__name__
        if type(layer) not in [getattr(torch.nn, known) for known in LAYERS] or _below(name, exclude):
            continue
        wide = per_channel and kind == "Linear"
        chosen[name] = ao.per_channel_dynamic_qconfig if wide else ao.default_dynamic_qconfig
        counts[kind] = counts.get(kind, 0) + 1
    if not chosen:
        raise ConvertError(
            "dynamic INT8 has nothing to quantise in this model",
            expected=f"one of the layers {', '.join(LAYERS)}",
            fix="use --recipe int8 with --calibration (static INT8 quantises convolutions)",
            code="nothing-to-quantise",
        )
    use_engine(engine)
    with legacy_quiet():
        try:
            quantised = ao.quantize_dynamic(copy.deepcopy(module).eval(), chosen, dtype=torch.qint8)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise ConvertError(
                f"PyTorch's dynamic quantiser failed: {str(error)[:600]}", code="quantiser-failed"
            ) from error
    return DynamicResult(quantised, counts, state_bytes(module), state_bytes(quantised))


def use_engine(engine: str) -> None:
    """Makes `engine` the one that packs and computes INT8 in this process. Raises ConvertError where torch lacks it."""
    torch = torch_models.need_torch()
    known = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if engine not in known:
        raise ConvertError(
            f"this torch has no quantised engine {engine!r}", expected=f"one of: {', '.join(known)}", code="no-engine"
        )
    torch.backends.quantized.engine = engine


def state_bytes(module: Any) -> int:
    """The size of the module's state as torch.save writes it."""
    torch = torch_models.need_torch()
    buffer = io.BytesIO()
    with legacy_quiet():
        torch.save(module.state_dict(), buffer)
    return buffer.tell()


def _below(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)
