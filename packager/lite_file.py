"""The file of PyTorch's lite interpreter (`.ptl`): written, lowered to an older bytecode, made reproducible."""

from __future__ import annotations

import pickletools
import re
import struct
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError
from packager import torch_models
from packager.torch_trace import legacy_quiet

# What torch 2.13 writes, and how far back its backport reaches.
NEWEST, OLDEST = 8, 4
_MANGLED = re.compile(r"___torch_mangle_\d+")
_LONG_TEXT, _GLOBAL = "BINUNICODE", "GLOBAL"
# Records that the writer makes itself.
_MADE = ("version", "byteorder", ".data/serialization_id")


def freeze(script: Any) -> Any:
    """The script with its weights as constants, convolutions and batch norms folded."""
    torch = torch_models.need_torch()
    with legacy_quiet(), torch.no_grad():
        frozen = script if _is_frozen(script) else torch.jit.freeze(script.eval())
        torch.jit.run_frozen_optimizations(frozen)
    return frozen


def write_lite(frozen: Any, path: Path, bytecode: int | None = None) -> int:
    """Writes the module for the lite interpreter; its bytecode version. The same module gives the same bytes.

    Raises ConvertError when `bytecode` cannot be reached.
    """
    from torch.jit.mobile import _get_model_bytecode_version

    with legacy_quiet():
        frozen._save_for_lite_interpreter(str(path))  # noqa: SLF001 - the only way there is
        version = int(_get_model_bytecode_version(str(path)))
        if bytecode is not None and bytecode != version:
            version = _backport(path, version, bytecode)
        _normalise(path)
    return version


def _backport(path: Path, have: int, want: int) -> int:
    from torch.jit.mobile import _backport_for_mobile, _get_model_bytecode_version

    if want > have or want < OLDEST:
        raise ConvertError(
            f"bytecode version {want} cannot be written",
            expected=f"{OLDEST} to {have} (this torch writes {have} and lowers it)",
            fix="PyTorch's Android Lite runtime 2.1.0 takes 4 to 9",
            code="bytecode",
        )
    lowered = path.with_suffix(".lowered")
    try:
        done = _backport_for_mobile(str(path), str(lowered), want)
    except RuntimeError as error:
        raise ConvertError(f"the backport to bytecode {want} failed: {str(error)[:400]}", code="bytecode") from error
    if not done or int(_get_model_bytecode_version(str(lowered))) != want:
        raise ConvertError(f"the backport to bytecode {want} failed", code="bytecode")
    lowered.replace(path)
    return want


def _normalise(path: Path) -> None:
    """Leaves out the TorchScript source, which the lite interpreter does not read and which holds the paths of the
    user's files; and numbers mangled class names from 0, which otherwise count all that this process ever traced.
    """
    torch = torch_models.need_torch()
    reader = torch._C.PyTorchFileReader(str(path))  # noqa: SLF001 - the format's own reader and writer
    names: dict[str, str] = {}
    records = {}
    for name in reader.get_all_records():
        if name.startswith("code/") or name in _MADE:
            continue
        data = reader.get_record(name)
        records[name] = data
    del reader
    twins = _twins(records)
    for name in twins:
        del records[f"constants/{name}"]
    for name in [one for one in records if one.endswith(".pkl")]:
        records[name] = _renamed(records[name], names, twins)
    writer = torch._C.PyTorchFileWriter(str(path))  # noqa: SLF001 - as above
    for name, data in records.items():
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()


def _twins(records: dict[str, bytes]) -> dict[str, str]:
    """Storages with the very bytes of an earlier one, by the name of that one. The x86 engine unpacks its weights anew each
    time they are written: for the bytecode and for the table of constants beside it.
    """
    if any(name.startswith("bytecode/") for name in records):
        return {}  # bytecode 4 numbers the storages of its own archive
    first: dict[bytes, str] = {}
    found = {}
    for name, data in records.items():
        if name.startswith("constants/") and name.endswith(".storage"):
            short = name.removeprefix("constants/")
            if first.setdefault(data, short) != short:
                found[short] = first[data]
    return found


def _renamed(data: bytes, names: dict[str, str], twins: dict[str, str]) -> bytes:
    """The pickle with its mangled names numbered in the order of their appearance, and storages by their twins' names."""

    def fresh(match: re.Match[str]) -> str:
        return names.setdefault(match.group(), f"___torch_mangle_{len(names)}")

    found = [(code.name, str(text), position or 0) for code, text, position in pickletools.genops(data)]
    out, done = bytearray(), 0
    for index, (kind, text, position) in enumerate(found):
        if kind not in (_LONG_TEXT, _GLOBAL) or not (text in twins or _MANGLED.search(text)):
            continue
        changed = twins.get(text) or _MANGLED.sub(fresh, text)
        out += data[done:position]
        if kind == _GLOBAL:
            out += b"c" + changed.replace(" ", "\n", 1).encode() + b"\n"
        else:
            raw = changed.encode()
            out += b"X" + struct.pack("<I", len(raw)) + raw
        done = found[index + 1][2]
    return bytes(out + data[done:])


def _is_frozen(script: Any) -> bool:
    return not list(script.named_parameters()) and not list(script.named_buffers())


def operators(path: Path) -> list[str]:
    """The operators the file calls, sorted."""
    from torch.jit.mobile import _get_model_ops_and_info

    return sorted(_get_model_ops_and_info(str(path)))
