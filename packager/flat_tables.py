"""Flatbuffers by a schema that is data: documents of dictionaries to bytes and back.

A schema names each table's fields in the order of their slots: "string", "float"s and integers as below, "[kind]" for a
vector, a table's name, or "A|B|C" for a union (two slots: which, and the value; its document is {"A": {...}}).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from agent.contract.errors import ConvertError
from packager.tflite_model import need

Schema = Mapping[str, Sequence[tuple[str, str]]]
_SCALARS = {"byte": ("b", 1), "ubyte": ("B", 1), "int": ("i", 4), "uint": ("I", 4), "float": ("f", 4)}
_IDENTIFIER_AT = 4


def encode(document: Mapping[str, Any], root: str, schema: Schema, identifier: bytes) -> bytes:
    """The document as a flatbuffer; absent and empty fields are left out. The same document gives the same bytes."""
    builder = need("flatbuffers").Builder(1024)
    place = _table(builder, document, root, schema)
    builder.Finish(place, file_identifier=identifier)
    return bytes(builder.Output())


def decode(raw: bytes, root: str, schema: Schema, identifier: bytes) -> dict[str, Any]:
    """The document in a flatbuffer. Raises ConvertError for another kind of file, or one that is damaged."""
    if raw[_IDENTIFIER_AT : _IDENTIFIER_AT + len(identifier)] != identifier:
        raise ConvertError(f"no {root}", expected=f"the identifier {identifier.decode()}", code="corrupt-metadata")
    try:
        return _Reader(raw, schema).table(_unpack("I", raw, 0), root)
    except (struct.error, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise ConvertError(f"the {root} is damaged: {error}", code="corrupt-metadata") from error


def _slots(fields: Sequence[tuple[str, str]]) -> list[tuple[int, str, str]]:
    found, slot = [], 0
    for name, kind in fields:
        found.append((slot, name, kind))
        slot += 2 if "|" in kind else 1
    return found


def _table(builder: Any, document: Mapping[str, Any], name: str, schema: Schema) -> int:
    slots = _slots(schema[name])
    unknown = set(document) - {field for _, field, _ in slots}
    if unknown:
        raise KeyError(f"{name} has no {', '.join(sorted(unknown))}")
    # Children first: a flatbuffer is written from its leaves to its root.
    children: dict[int, int] = {}
    for slot, field, kind in slots:
        value = document.get(field)
        if value in (None, "", [], ()) or kind in _SCALARS:
            continue
        if "|" in kind:
            ((which, inner),) = value.items()
            children[slot + 1] = _table(builder, inner, which, schema)
        else:
            children[slot] = _child(builder, value, kind, schema)
    builder.StartObject(slots[-1][0] + (2 if "|" in slots[-1][2] else 1) if slots else 0)
    for slot, field, kind in slots:
        value = document.get(field)
        if "|" in kind and value:
            builder.PrependUint8Slot(slot, 1 + kind.split("|").index(next(iter(value))), 0)
            builder.PrependUOffsetTRelativeSlot(slot + 1, children[slot + 1], 0)
        elif slot in children:
            builder.PrependUOffsetTRelativeSlot(slot, children[slot], 0)
        elif kind in _SCALARS and value is not None:
            _prepend(builder, slot, kind, value)
    return int(builder.EndObject())


def _prepend(builder: Any, slot: int, kind: str, value: Any) -> None:
    names = {"byte": "Int8", "ubyte": "Uint8", "int": "Int32", "uint": "Uint32", "float": "Float32"}
    getattr(builder, f"Prepend{names[kind]}Slot")(slot, value, 0)


def _child(builder: Any, value: Any, kind: str, schema: Schema) -> int:
    if kind == "string":
        return int(builder.CreateString(value))
    if not kind.startswith("["):
        return _table(builder, value, kind, schema)
    inner = kind[1:-1]
    if inner in _SCALARS:
        letter, size = _SCALARS[inner]
        builder.StartVector(size, len(value), size)
        for item in reversed(value):
            getattr(builder, {"f": "PrependFloat32", "I": "PrependUint32", "B": "PrependUint8"}[letter])(item)
        return int(builder.EndVector())
    places = [_child(builder, item, inner, schema) for item in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _unpack(letter: str, raw: bytes, place: int) -> Any:
    if place < 0:
        raise IndexError(f"an offset before the file: {place}")
    return struct.unpack_from("<" + letter, raw, place)[0]


class _Reader:
    def __init__(self, raw: bytes, schema: Schema) -> None:
        self.raw, self.schema = raw, schema

    def table(self, place: int, name: str) -> dict[str, Any]:
        base = place - _unpack("i", self.raw, place)
        size = _unpack("H", self.raw, base)
        found: dict[str, Any] = {}
        for slot, field, kind in _slots(self.schema[name]):
            at = self._at(place, base, size, slot)
            if "|" in kind:
                value_at = self._at(place, base, size, slot + 1)
                if at and value_at:
                    which = kind.split("|")[_unpack("B", self.raw, at) - 1]
                    found[field] = {which: self._value(value_at, which)}
            elif at:
                found[field] = self._value(at, kind)
        return found

    def _at(self, place: int, base: int, size: int, slot: int) -> int:
        entry = 4 + 2 * slot
        offset = _unpack("H", self.raw, base + entry) if entry < size else 0
        return place + offset if offset else 0

    def _value(self, at: int, kind: str) -> Any:
        if kind in _SCALARS:
            return _unpack(_SCALARS[kind][0], self.raw, at)
        place = at + _unpack("I", self.raw, at)
        if kind == "string":
            length = _unpack("I", self.raw, place)
            return self.raw[place + 4 : place + 4 + length].decode("utf-8")
        if not kind.startswith("["):
            return self.table(place, kind)
        inner, count = kind[1:-1], _unpack("I", self.raw, place)
        width = _SCALARS[inner][1] if inner in _SCALARS else 4
        if count * width > len(self.raw):
            raise IndexError(f"a vector of {count} does not fit into the file")
        return [self._value(place + 4 + width * index, inner) for index in range(count)]
