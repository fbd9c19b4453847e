"""What comes before a measurement: a runtime that builds on the device does so here, once."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Dict

from agent import launch
from agent.contract.manifest import Manifest
from agent.disk import disk_errors
from agent.probes import jetson, memory
from agent.wire import Wire
from agent.workshop import Prepared, Workshop


def prepare(manifest: Manifest, folder: str, options: Dict[str, Any], root: str, wire: Wire) -> Prepared:
    """The options to load the bundle with. Runners without a function `prepare` need nothing. Raises what it raises."""
    module = importlib.import_module("agent.runners." + manifest.runtime.name)
    if not hasattr(module, "prepare"):
        return Prepared(options)

    def call(function: str, arguments: Dict[str, Any], seconds: float = 0.0) -> Any:
        task = {"task": "call", "runner": manifest.runtime.name, "function": function, "arguments": arguments}
        return launch.in_child(task, wire.progress, seconds)

    shop = Workshop(
        root=os.path.join(root, "cache"),
        call=call,
        progress=wire.progress,
        memory_available=memory.read()["memory_available"],
        board=jetson.board(),
    )
    with disk_errors(Path(root)):
        prepared: Prepared = module.prepare(manifest, folder, options, shop)
    return prepared
