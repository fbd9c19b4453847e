"""ExecuTorch, by its Python runtime; which calls the file gives to a delegate is read from the file."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Dict, List

from agent.contract.errors import DeviceError, IntegrityError
from agent.contract.pte import PteFacts, read_pte

MODULE = "executorch"
DISTRIBUTIONS = ["executorch"]
# Its Python runtime exchanges torch tensors.
PACKAGES = ["executorch", "torch"]

_NEEDED = {"xnnpack": "XnnpackBackend"}


class Runner:
    """A `.pte` and its method `forward`."""

    name = "executorch"

    def __init__(self) -> None:
        self._method: Any = None
        self._program: Any = None
        self._facts = PteFacts(0, {}, {})
        self._provider = "cpu"
        self._inputs: List[str] = []
        self._outputs: List[str] = []

    def load(self, path: str, options: Dict[str, Any]) -> None:
        """`options`: threads (0: the runtime's default), inputs and outputs (names in order), provider (xnnpack: the
        model must hold calls for it).

        Raises DeviceError when this runtime lacks a backend that the file calls, or the model does not load.
        """
        self._inputs, self._outputs = options["inputs"], options["outputs"]
        try:
            self._facts = read_pte(Path(path).read_bytes())
        except IntegrityError as error:
            raise DeviceError(error.what, where=os.path.basename(path), code="load-failed") from error
        self._provider = self._choose(options.get("provider") or "cpu")
        with _quiet():
            try:
                portable_lib, runtime = _runtime()
            except ImportError as error:
                raise DeviceError(
                    "executorch does not import on the device: %s" % error,
                    fix="on the device: pip install %s" % " ".join(PACKAGES),
                    code="no-runtime",
                ) from error
            known = list(runtime.backend_registry.registered_backend_names)
            missing = [name for name in self._facts.delegated if name not in known]
            if missing:
                raise DeviceError(
                    "this executorch lacks the backend %s" % ", ".join(missing),
                    expected="one of: %s" % ", ".join(known),
                    fix="on the device: pip install %s" % " ".join(PACKAGES),
                    code="no-provider",
                )
            if options.get("threads"):
                portable_lib._unsafe_reset_threadpool(options["threads"])  # noqa: SLF001 - the only way there is
            try:
                self._program = runtime.load_program(Path(path))
                self._method = self._program.load_method("forward")
            except (RuntimeError, ValueError) as error:
                raise DeviceError(
                    "executorch %s does not load the model: %s" % (self.version(), str(error)[:600]),
                    where=os.path.basename(path),
                    fix="install the executorch version that the bundle was built with, or newer",
                    code="load-failed",
                ) from error

    def _choose(self, asked: str) -> str:
        if asked.lower() == "cpu":
            return "cpu"
        name = _NEEDED.get(asked.lower(), asked)
        if name in self._facts.delegated:
            return name
        raise DeviceError(
            "%s was asked for, but the model holds no call for it" % asked,
            where="delegates in the file: %s" % (", ".join(self._facts.delegated) or "none"),
            fix="a delegate is chosen when the bundle is built; leave --provider out",
            code="provider-not-used",
        )

    def version(self) -> str:
        """The runtime's version."""
        from importlib import metadata

        return metadata.version("executorch")

    def provider(self) -> str:
        """What was asked for: cpu (XNNPACK is part of it), or a backend by name."""
        return self._provider

    def io(self) -> Dict[str, Any]:
        """The file itself names neither: as the bundle names them."""
        return {
            "inputs": [(name, "", []) for name in self._inputs],
            "outputs": [(name, "", []) for name in self._outputs],
        }

    def run(self, inputs: Dict[str, Any]) -> List[Any]:
        """The outputs, in the order of `output_names`."""
        import torch

        return [one.numpy() for one in self._method.execute([torch.from_numpy(inputs[name]) for name in self._inputs])]

    def output_names(self) -> List[str]:
        """The names that `run`'s values belong to."""
        return self._outputs

    def placement(self) -> Dict[str, int]:
        """How many calls go to each delegate (each is many operators), and how many to the runtime's portable kernels."""
        counts = dict(self._facts.delegated)
        if self._facts.portable:
            counts["portable"] = sum(self._facts.portable.values())
        return counts

    def close(self) -> None:
        """Frees the program."""
        self._method = self._program = None


def _runtime() -> Any:
    try:
        with _without_exporter():
            return _imported()
    except ImportError:
        return _imported()  # a release whose runtime needs more of the exporter; or there is none


def _imported() -> Any:
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    return portable_lib, Runtime.get()


@contextlib.contextmanager
def _without_exporter() -> Any:
    """Has the package executorch.exir stand there without its `__init__` for a while. The runtime imports it for the class of
    a warning, and so all of the exporter, torch._dynamo and torchao: 7 of the 10 seconds of processor time that a fresh
    process took before it measured (executorch 1.5).
    """
    name = "executorch.exir"
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:
        yield
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def _quiet() -> Any:
    # torchao and executorch warn at import about what they lack for other hardware.
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
