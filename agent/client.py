"""For applications: the model that a slot holds, loaded in this process; it follows activations.

sys.path.insert(0, os.path.expanduser("~/.edgepack/agent/agent.pyz"))
from agent.client import Model
outputs = Model("vision").run({"input": array})
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from agent import activation, child, preparing, site
from agent.contract.errors import DeviceError, EdgepackError, UsageError
from agent.contract.manifest import TensorSpec
from agent.slots import current_digest
from agent.store import Store

_DIGEST = re.compile(r"^(sha256:)?[0-9a-f]{64}\Z")


class Quiet:
    """Takes the progress of the checks, and says nothing."""

    def progress(self, message: str) -> None:
        """Nothing."""


class Model:
    """The bundle of a slot, or of a digest. `problem` is why a newer bundle was not taken: then the old one goes on.

    Every file's digest is checked before it is loaded. Raises DeviceError, IntegrityError.
    """

    def __init__(self, name: str, root: str = "~/.edgepack", *, threads: int = 0) -> None:
        site.enable(root)
        self.store = Store(root)
        self.name = name
        self.digest = ""
        self.problem: Optional[EdgepackError] = None
        self._options = {"threads": threads, "provider": ""}
        self._runner: Any = None
        self._inputs: List[TensorSpec] = []
        self._take(self._wanted())

    def run(self, inputs: Dict[str, Any]) -> Dict[str, Any]:
        """The outputs by name. Takes the slot's new bundle first, if there was an activation. Raises UsageError."""
        self.refresh()
        self._check(inputs)
        outputs = self._runner.run(dict(inputs))
        real = getattr(self._runner, "real_outputs", list)
        return dict(zip(self._runner.output_names(), real(outputs)))

    def refresh(self) -> bool:
        """Whether a new bundle was taken; one that cannot be loaded is told in `problem`, once, and the old one stays, as
        it does when the slot was emptied.
        """
        try:
            wanted = self._wanted()
        except DeviceError as error:
            self.problem = error
            return False
        if wanted == self.digest:
            self.problem = None
            return False
        if self.problem is not None and self.problem.where == wanted:
            return False
        try:
            self._take(wanted)
        except EdgepackError as error:
            error.where = wanted
            self.problem = error
            return False
        self.problem = None
        return True

    def close(self) -> None:
        """Frees the model."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _wanted(self) -> str:
        if _DIGEST.match(self.name):
            return self.name if self.name.startswith("sha256:") else "sha256:" + self.name
        digest = current_digest(self.store.root, self.name)
        if digest is None:
            fix = "edgepack push BUNDLE DEVICE --slot %s" % self.name
            raise DeviceError("nothing is active in the slot %r" % self.name, fix=fix, code="no-bundle")
        return digest

    def _take(self, digest: str) -> None:
        quiet: Any = Quiet()
        asking = activation.candidate(self.store, digest, quiet)
        activation.admit(asking, skip=activation.RUNS_IT)
        folder = str(asking.folder)
        prepared = preparing.prepare(asking.manifest, folder, dict(self._options), str(self.store.root), quiet)
        runner = child.load_runner(asking.manifest, Path(folder), prepared.options)
        self.close()
        self._runner, self._inputs, self.digest = runner, asking.manifest.inputs, digest

    def _check(self, inputs: Dict[str, Any]) -> None:
        wanted = {spec.name: spec for spec in self._inputs}
        if set(wanted) != set(inputs):
            raise UsageError("inputs %s" % sorted(inputs), expected="exactly: %s" % ", ".join(wanted), code="inputs")
        for name, spec in wanted.items():
            array = inputs[name]
            fits = len(array.shape) == len(spec.shape) and all(
                not isinstance(size, int) or size == found for size, found in zip(spec.shape, array.shape)
            )
            if str(array.dtype) != spec.dtype or not fits:
                raise UsageError(
                    "input %r is %s %s" % (name, array.dtype, list(array.shape)),
                    expected="%s %s" % (spec.dtype, list(spec.shape)),
                    code="inputs",
                )


def run_once(arguments: List[str]) -> None:
    """`agent.pyz run BUNDLE_OR_SLOT --input x.npz --output y.npz [--root FOLDER]`: one inference, file to file."""
    import argparse
    import sys

    own = Path(os.path.abspath(sys.argv[0])).parent
    parser = argparse.ArgumentParser(prog="agent.pyz run", description="One inference, file to file.")
    parser.add_argument("bundle", metavar="BUNDLE_OR_SLOT")
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--root", default=str(own.parent) if own.name == "agent" else "~/.edgepack")
    parser.add_argument("--threads", type=int, default=0)
    chosen = parser.parse_args(arguments)
    _run_files(chosen)


def _run_files(chosen: Any) -> None:
    model = Model(chosen.bundle, chosen.root, threads=chosen.threads)
    import numpy as np

    try:
        with np.load(chosen.input, allow_pickle=False) as arrays:
            inputs = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise UsageError("the input cannot be read: %s" % error, where=chosen.input, code="no-file") from error
    outputs = model.run(inputs)
    part = chosen.output + ".part"
    try:
        with open(part, "wb") as file:
            np.savez(file, **outputs)
        os.replace(part, chosen.output)
    except OSError as error:
        raise UsageError("the output cannot be written: %s" % error, where=chosen.output, code="no-file") from error
    model.close()
