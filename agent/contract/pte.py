"""What an ExecuTorch file (`.pte`) does, read from the file itself: its schema version, and which calls go to a delegate.

The file is a flatbuffer ("schema/program.fbs" of ExecuTorch); of it only these few tables are read, without a library.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Dict, List, Optional

from agent.contract.errors import IntegrityError

_MAGIC = b"ET"
# Field numbers in their tables.
_VERSION, _PLANS = 0, 1
_CHAINS, _OPERATORS, _DELEGATES = 5, 6, 7
_INSTRUCTIONS = 2
_ARGUMENT_KIND, _ARGUMENT = 0, 1
_KERNEL, _DELEGATE = 1, 2
_INDEX, _NAME = 0, 0


@dataclasses.dataclass(frozen=True)
class PteFacts:
    """`delegated` counts calls by backend, `portable` calls of the runtime's own kernels by operator."""

    schema_version: int
    delegated: Dict[str, int]
    portable: Dict[str, int]


def read_pte(data: bytes) -> PteFacts:
    """The facts of the file's first method. Raises IntegrityError for what is no `.pte`."""
    if data[4:6] != _MAGIC:
        raise IntegrityError("not an ExecuTorch program", expected='a .pte file ("ET" at byte 4)', code="not-pte")
    try:
        return _read(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise IntegrityError("the ExecuTorch program is damaged: %s" % error, code="not-pte") from error


def _read(data: bytes) -> PteFacts:
    buffer = _Buffer(data)
    root = buffer.follow(0)
    plan = buffer.tables(root, _PLANS)[0]
    operators = [buffer.text(table, _NAME) for table in buffer.tables(plan, _OPERATORS)]
    backends = [buffer.text(table, _NAME) for table in buffer.tables(plan, _DELEGATES)]
    delegated: Dict[str, int] = {}
    portable: Dict[str, int] = {}
    for chain in buffer.tables(plan, _CHAINS):
        for instruction in buffer.tables(chain, _INSTRUCTIONS):
            kind, call = buffer.byte(instruction, _ARGUMENT_KIND), buffer.table(instruction, _ARGUMENT)
            if call is None or kind not in (_KERNEL, _DELEGATE):
                continue
            index = buffer.number(call, _INDEX)
            counts, name = (portable, operators[index]) if kind == _KERNEL else (delegated, backends[index])
            counts[name] = counts.get(name, 0) + 1
    return PteFacts(schema_version=buffer.number(root, _VERSION), delegated=delegated, portable=portable)


class _Buffer:
    """Flatbuffer tables by position; a field that is not there is its default: 0, empty, None."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def follow(self, position: int) -> int:
        return position + int(struct.unpack_from("<I", self._data, position)[0])

    def _field(self, table: int, index: int) -> Optional[int]:
        directory = table - struct.unpack_from("<i", self._data, table)[0]
        place = 4 + 2 * index
        if place >= struct.unpack_from("<H", self._data, directory)[0]:
            return None
        offset = struct.unpack_from("<H", self._data, directory + place)[0]
        return table + offset if offset else None

    def table(self, table: int, index: int) -> Optional[int]:
        field = self._field(table, index)
        return None if field is None else self.follow(field)

    def tables(self, table: int, index: int) -> List[int]:
        start = self.table(table, index)
        if start is None:
            return []
        count = struct.unpack_from("<I", self._data, start)[0]
        if 4 * count > len(self._data):
            raise IndexError("a vector is longer than the file")
        return [self.follow(start + 4 + 4 * one) for one in range(count)]

    def text(self, table: int, index: int) -> str:
        start = self.table(table, index)
        if start is None:
            return ""
        length = struct.unpack_from("<I", self._data, start)[0]
        return self._data[start + 4 : start + 4 + length].decode("utf-8")

    def number(self, table: int, index: int) -> int:
        field = self._field(table, index)
        return 0 if field is None else int(struct.unpack_from("<i", self._data, field)[0])

    def byte(self, table: int, index: int) -> int:
        field = self._field(table, index)
        return 0 if field is None else self._data[field]
