"""The agent as one file: sorted entries, fixed timestamps, so that two builds are identical and its hash is its name.

Its modules lie in one tar within the zip and so share one compression (`agent.packed` imports from there).
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import io
import secrets
import tarfile
import tokenize
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Read before anything else on the device; must parse on any Python 3, to say which version is needed.
_MAIN = b"""import sys
if sys.version_info < (3, 8):
    import json
    what = "the device's Python is %d.%d" % sys.version_info[:2]
    fix = "name a newer interpreter: edgepack devices add NAME ADDRESS --python PATH"
    error = {"kind": "DeviceError", "what": what, "where": sys.executable, "expected": "Python 3.8 or newer", "fix": fix,
             "code": "old-python"}
    print(json.dumps({"type": "error", "error": error}))
    sys.exit(4)
from agent.__main__ import main
sys.exit(main())
"""

_INIT = b"""from agent.packed import install
install(__path__[0], __loader__.get_data(__path__[0] + "/modules.tar"))
"""


@functools.cache
def agent_zip() -> bytes:
    """The zipapp's bytes. A build is kept in the user's cache: packing takes half as long as a push that has nothing to do."""
    import platformdirs

    sources = _sources()
    key = hashlib.sha256(Path(__file__).read_bytes())
    for name, data in sources.items():
        key.update(b"%s\0%d\0%s" % (name.encode(), len(data), data))
    folder = platformdirs.user_cache_path("edgepack") / "agent"
    for path in folder.glob(f"{key.hexdigest()}-*.pyz"):
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if path.stem.rpartition("-")[2] == hashlib.sha256(data).hexdigest():
                return data
    data = pack(sources)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{key.hexdigest()[:16]}.{secrets.token_hex(4)}.part"
        part.write_bytes(data)
        part.replace(folder / f"{key.hexdigest()}-{hashlib.sha256(data).hexdigest()}.pyz")
    return data


def pack(sources: dict[str, bytes] | None = None) -> bytes:
    """Makes the zipapp anew."""
    bare = {name: _bare(data.decode("utf-8")) for name, data in (_sources() if sources is None else sources).items()}
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", _MAIN)
        _add(archive, "agent/__init__.py", _INIT)
        _add(archive, "agent/packed.py", bare.pop("agent/packed.py"))
        _add(archive, "agent/modules.tar", _tar(bare))
    return buffer.getvalue()


def _tar(sources: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sources.items():
            entry = tarfile.TarInfo(name.removeprefix("agent/"))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _sources() -> dict[str, bytes]:
    import agent

    base = Path(agent.__file__).parent
    return {f"agent/{path.relative_to(base).as_posix()}": path.read_bytes() for path in sorted(base.rglob("*.py"))}


def _bare(source: str) -> bytes:
    """The module without its comments, docstrings, wide margins and the annotations of its functions (which nobody
    evaluates; those of dataclasses stay), every line where it was: tracebacks of a device name lines of ours.

    It is sent to each device and read at each start, and more than a third of it is words.
    """
    lines = [line.encode("utf-8") for line in source.splitlines(keepends=True)]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            before = token.line[:column].rstrip()
            lines[row - 1] = before.encode("utf-8") + b"\n"
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            words = node.body[0]
            indent = lines[words.lineno - 1][: words.col_offset]
            for row in range(words.lineno, (words.end_lineno or words.lineno) + 1):
                lines[row - 1] = b"\n"
            lines[words.lineno - 1] = indent + b'""\n'
    # From the back, so that what comes before keeps its place.
    for start, end in sorted(_annotations(tree), reverse=True):
        if start[0] == end[0]:  # one over several lines stays
            line = lines[start[0] - 1]
            head = line[: start[1]].rstrip()
            lines[start[0] - 1] = head.removesuffix(b"->").rstrip().removesuffix(b":") + line[end[1] :]
    return _narrow(b"".join(lines).decode("utf-8")).encode("utf-8")


def _narrow(source: str) -> str:
    """The same program, a space for each level; lines within brackets begin at once, and those of strings stay."""
    lines = source.splitlines(keepends=True)
    indent: dict[int, int] = {}
    strings: set[int] = set()
    level, fresh = 0, True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.INDENT, tokenize.DEDENT}:
            level += 1 if token.type == tokenize.INDENT else -1
        elif token.type == tokenize.NEWLINE:
            fresh = True
        elif token.type != tokenize.NL:
            if fresh:
                indent[token.start[0]] = level
                fresh = False
            strings.update(range(token.start[0] + 1, token.end[0] + 1))
    for row, line in enumerate(lines, start=1):
        if row not in strings:
            lines[row - 1] = " " * indent.get(row, 0) + (line.lstrip(" ") if line.strip() else "\n")
    return "".join(lines)


def _annotations(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations of parameters and results stand: line and byte of their begin and end."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            for found in [node.returns, *(one.annotation for one in every if one is not None)]:
                if found is not None:
                    yield (found.lineno, found.col_offset), (found.end_lineno or 0, found.end_col_offset or 0)


def agent_name() -> str:
    """The file's name on the device: addressed by its hash, so that version skew is impossible."""
    return f"agent-{hashlib.sha256(agent_zip()).hexdigest()[:12]}.pyz"


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    archive.writestr(entry, data, compresslevel=9)
