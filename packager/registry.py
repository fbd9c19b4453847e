"""The folder is the registry: sources, converters and targets are found by listing their folders.

Targets may also come from other distributions, by the entry point group `edgepack.targets`, looked at only when a name is
not found here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from agent.contract.errors import unknown_name

if TYPE_CHECKING:
    from packager.protocols import Converter, Source, Target

ENTRY_POINTS = "edgepack.targets"


def class_name(module: str) -> str:
    """The class that a module of this name holds: `onnx_from_torch` holds `OnnxFromTorch`."""
    return "".join(part.capitalize() for part in module.split("_"))


def _modules(package: str) -> list[str]:
    folder = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_"))


def _load(package: str, name: str) -> Any:
    return getattr(importlib.import_module(f"{package}.{name}"), class_name(name))()


@functools.cache
def sources() -> tuple[Source, ...]:
    """Every format that a user's model may come in."""
    return tuple(_load("packager.sources", name) for name in _modules("packager.sources"))


@functools.cache
def converters() -> tuple[Converter, ...]:
    """Every edge of the format graph."""
    return tuple(_load("packager.convert", name) for name in _modules("packager.convert"))


def target_names() -> list[str]:
    """The runtimes that can be built for."""
    return _modules("targets")


@functools.cache
def target(name: str) -> Target:
    """The target of this name. Raises UsageError that lists the known ones."""
    if name in target_names():
        loaded: Target = _load("targets", name)
        return loaded
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS, name=name):
        found: Target = point.load()()
        return found
    raise unknown_name("runtime", name, target_names(), fix="edgepack runtimes list")


def source(name: str) -> Source:
    """The source of this format."""
    for one in sources():
        if one.format == name:
            return one
    raise unknown_name("source format", name, [one.format for one in sources()])


def path_between(start: str, goal: str) -> list[Converter] | None:
    """The fewest converters that lead from one format to the other; None when none do."""
    paths: list[tuple[str, list[Converter]]] = [(start, [])]
    seen = {start}
    for reached, steps in paths:
        if reached == goal:
            return steps
        for edge in converters():
            if edge.source == reached and edge.result not in seen:
                seen.add(edge.result)
                paths.append((edge.result, [*steps, edge]))
    return None


def path_to(start: str, goal: Target) -> list[Converter] | None:
    """The fewest converters that lead from a format to one that the target lowers; None when none do."""
    paths = [path_between(start, one) for one in getattr(goal, "formats", (goal.format,))]
    return min((path for path in paths if path is not None), key=len, default=None)


def reachable(start: str) -> list[str]:
    """The runtimes that can be reached from this format."""
    return [name for name in target_names() if path_to(start, target(name)) is not None]
