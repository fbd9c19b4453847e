"""PyTorch's lite interpreter, as it comes with the torch package: the interpreter that Android's Lite library holds."""

from __future__ import annotations

import os
import warnings
from typing import Any, Dict, List

from agent.contract.errors import ContractError, DeviceError

MODULE = "torch"
DISTRIBUTIONS = ["torch"]
PACKAGES = ["torch"]

_OPTIONS = ("quantized_engine",)


class Runner:
    """A `.ptl` in the lite interpreter."""

    name = "pytorch_lite"

    def __init__(self) -> None:
        self._module: Any = None
        self._inputs: List[str] = []
        self._outputs: List[str] = []
        self._operators: Dict[str, int] = {}

    def load(self, path: str, options: Dict[str, Any]) -> None:
        """`options`: threads (0: the runtime's default), inputs and outputs (names in order), session_options
        (quantized_engine), provider (cpu only).

        Raises DeviceError when the engine is not in this torch, or the model does not load.
        """
        import torch
        from torch.jit.mobile import _load_for_lite_interpreter

        if (options.get("provider") or "cpu").lower() != "cpu":
            raise DeviceError(
                "the lite interpreter has no provider %r" % options["provider"], expected="cpu", code="no-provider"
            )
        if options.get("threads"):
            torch.set_num_threads(options["threads"])
        _set_engine(dict(options.get("session_options") or {}))
        self._inputs, self._outputs = options["inputs"], options["outputs"]
        try:
            with warnings.catch_warnings():
                # Deprecated since torch 2.14, and the one way to run these files.
                warnings.simplefilter("ignore")
                self._module = _load_for_lite_interpreter(path)
                self._operators = _operator_counts(path)
        except (RuntimeError, ValueError) as error:
            raise DeviceError(
                "torch %s does not load the model: %s" % (torch.__version__, str(error)[:600]),
                where=os.path.basename(path),
                fix="lower the bytecode at build time (--bytecode N), or install a newer torch",
                code="load-failed",
            ) from error

    def version(self) -> str:
        """The runtime's version."""
        import torch

        return str(torch.__version__)

    def provider(self) -> str:
        """There is one."""
        return "cpu"

    def io(self) -> Dict[str, Any]:
        """The file itself names neither: as the bundle names them."""
        return {
            "inputs": [(name, "", []) for name in self._inputs],
            "outputs": [(name, "", []) for name in self._outputs],
        }

    def run(self, inputs: Dict[str, Any]) -> List[Any]:
        """The outputs, in the order of `output_names`."""
        import torch

        with torch.no_grad():
            result = self._module(*[torch.from_numpy(inputs[name]) for name in self._inputs])
        found: List[Any] = []
        _flatten(result, found)
        return found

    def output_names(self) -> List[str]:
        """The names that `run`'s values belong to."""
        return self._outputs

    def placement(self) -> Dict[str, int]:
        """How many of the model's operators are float, and how many come from the INT8 engine."""
        return self._operators

    def close(self) -> None:
        """Frees the module."""
        self._module = None


def _set_engine(options: Dict[str, Any]) -> None:
    import torch

    for key in options:
        if key not in _OPTIONS:
            raise ContractError("unknown session option %r" % key, expected="one of: %s" % ", ".join(_OPTIONS))
    engine = options.get("quantized_engine")
    if engine is None:
        return
    known = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if engine not in known:
        raise DeviceError(
            "this torch has no INT8 engine %r" % engine,
            expected="one of: %s" % ", ".join(known),
            fix="build for a profile of this processor",
            code="no-engine",
        )
    torch.backends.quantized.engine = engine


def _operator_counts(path: str) -> Dict[str, int]:
    import torch
    from torch.jit.mobile import _get_model_ops_and_info

    names = list(_get_model_ops_and_info(path))
    whole = [name for name in names if "quantized" in name]
    engine = "cpu (%s)" % torch.backends.quantized.engine
    counts = {"cpu": len(names) - len(whole), engine: len(whole)}
    return {key: count for key, count in counts.items() if count}


def _flatten(result: Any, found: List[Any]) -> None:
    if hasattr(result, "numpy"):
        found.append(result.numpy())
    elif isinstance(result, dict):
        for value in result.values():
            _flatten(value, found)
    elif isinstance(result, (tuple, list)):
        for value in result:
            _flatten(value, found)
    elif result is not None:
        raise DeviceError("the model returns %s" % type(result).__name__, expected="tensors", code="output-type")
