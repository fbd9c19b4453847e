"""Imports the agent's modules from one tar file within the zipapp.

A zip compresses each file by itself, and a hundred small modules share most of their words: together they take two thirds of
the bytes that are sent to each device. `tar -x` still shows everything.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import Any, Dict, Iterator, Optional, Tuple

_BLOCK = 512


def install(root: str, archive: bytes) -> None:
    """From here on, what lies under `root` (the path of the package `agent`) is read from `archive`, an uncompressed tar."""
    sources = dict(_members(archive))

    def hook(path: str) -> Finder:
        if path != root and not path.startswith(root + "/"):
            raise ImportError("not within the agent")
        return Finder(path, path[len(root) + 1 :], sources)

    sys.path_hooks.insert(0, hook)
    # Asked for this module just now, the zip's own importer is remembered for the folder.
    sys.path_importer_cache.pop(root, None)


class Finder:
    """Finds modules in one folder of the tar, for the import system and for `pkgutil.iter_modules`."""

    def __init__(self, path: str, folder: str, sources: Dict[str, bytes]) -> None:
        self._path, self._folder, self._sources = path, folder + "/" if folder else "", sources

    def find_spec(self, fullname: str, target: Any = None) -> Optional[ModuleSpec]:  # noqa: ARG002 - a given signature
        """Where a module of this folder lies; None when it is not here (`target` is the import system's, for reloading)."""
        name = fullname.rpartition(".")[2]
        for tail in ("/__init__.py", ".py"):
            source = self._sources.get(self._folder + name + tail)
            if source is None:
                continue
            package = tail != ".py"
            origin = "%s/%s%s" % (self._path, name, tail)
            loader: Any = Loader(source, origin)
            spec = ModuleSpec(fullname, loader, origin=origin, is_package=package)
            spec.has_location = True
            if package:
                spec.submodule_search_locations = ["%s/%s" % (self._path, name)]
            return spec
        return None

    def iter_modules(self, prefix: str = "") -> Iterator[Tuple[str, bool]]:
        """Name and whether it is a package, of each module here."""
        for path in self._sources:
            name, _, rest = path[len(self._folder) :].partition("/")
            if not path.startswith(self._folder) or name == "__init__.py":
                continue
            if rest == "__init__.py":
                yield prefix + name, True
            elif not rest:
                yield prefix + name[: -len(".py")], False


class Loader:
    """Runs one module; `linecache` asks it for the lines of a traceback."""

    def __init__(self, source: bytes, origin: str) -> None:
        self._source, self._origin = source, origin

    def create_module(self, spec: ModuleSpec) -> None:
        """The import system makes it."""

    def exec_module(self, module: Any) -> None:
        """Fills the module."""
        exec(compile(self._source, self._origin, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what an importer does

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - a given signature
        """The lines that run."""
        return self._source.decode("utf-8")


def _members(archive: bytes) -> Iterator[Tuple[str, bytes]]:
    """Name and content of each file. The tar is our own (`packager.device.agent_zip`): plain files with short names."""
    at = 0
    while at + _BLOCK <= len(archive) and archive[at]:
        name = archive[at : at + 100].rstrip(b"\0").decode("utf-8")
        size = int(archive[at + 124 : at + 136].rstrip(b"\0 "), 8)
        at += _BLOCK
        yield name, archive[at : at + size]
        at += -(-size // _BLOCK) * _BLOCK
