"""Strict dataclass <-> JSON, on both sides of the wire: unknown keys and wrong types are errors, nothing is coerced.

Understands dataclasses, str, int, float, bool, Any, Optional, Union of plain types, List, Tuple[X, ...] and Dict[str, X].
An int is taken where a float is wanted (JSON has one kind of number). Every document class carries a field `schema` whose
default is "<kind>/<major>"; another kind or major version is refused, and both are named.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any, Dict, Type, TypeVar

from agent.contract.errors import ContractError, nearest

T = TypeVar("T")
_HINTS: Dict[type, Dict[str, Any]] = {}


def encode(value: Any) -> Any:
    """The value as JSON-ready dicts and lists; keys in the order of the fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value


def dumps(value: Any) -> str:
    """The canonical text of a document: sorted keys, two spaces, a newline at the end. NaN and infinity are refused."""
    return json.dumps(encode(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def loads(kind: Type[T], text: typing.Union[str, bytes], source: str = "") -> T:
    """The document in `text`, decoded. Raises ContractError; `source` names the file in it."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError("not a JSON document: %s" % error, where=source) from error
    return decode(kind, data, source=source)


def decode(kind: Type[T], data: Any, where: str = "$", source: str = "") -> T:
    """`data` as an instance of `kind`. Raises ContractError that names the place (`$.runtime.threads`)."""
    try:
        value: T = _decode(kind, data, where)
    except ContractError as error:
        error.where = source or error.where
        raise
    return value


def _decode(kind: Any, data: Any, where: str) -> Any:  # noqa: PLR0911 - one return per kind of type
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        return _decode_union(args, data, where)
    if origin in (list, tuple):
        _want(list, data, where)
        return origin(_decode(args[0], item, "%s[%d]" % (where, index)) for index, item in enumerate(data))
    if origin is dict:
        _want(dict, data, where)
        return {key: _decode(args[1], item, "%s.%s" % (where, key)) for key, item in data.items()}
    if kind is float and type(data) is int:
        return float(data)
    _want(kind, data, where)
    return data


def _decode_union(args: Any, data: Any, where: str) -> Any:
    if data is None and type(None) in args:
        return None
    kinds = [arg for arg in args if arg is not type(None)]
    if len(kinds) == 1:
        return _decode(kinds[0], data, where)
    for kind in kinds:
        try:
            return _decode(kind, data, where)
        except ContractError:
            continue
    names = ", ".join(_name(kind) for kind in kinds)
    raise ContractError("%s: expected one of %s, got %s" % (where, names, _shown(data)), code="wrong-type")


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    _want(dict, data, where)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if "schema" in fields:
        _check_schema(fields["schema"].default, data.get("schema"), where)
    for key in data:
        if key not in fields:
            near = nearest(key, fields)
            hint = "did you mean %r?" % near if near else "known: %s" % ", ".join(sorted(fields))
            raise ContractError("%s: unknown key %r (%s)" % (where, key, hint), code="unknown-key")
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(_HINTS[kind][name], data[name], "%s.%s" % (where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ContractError("%s: missing key %r" % (where, name), code="missing-key")
    return kind(**values)


def _check_schema(ours: Any, theirs: Any, where: str) -> None:
    if theirs == ours:
        return
    fix = ""
    kind, _, major = str(ours).partition("/")
    their_kind, _, their_major = str(theirs).partition("/")
    if their_kind == kind and their_major.isdigit() and int(their_major) > int(major):
        fix = "update edgepack: this document was written by a newer version"
    raise ContractError(
        "%s.schema: %r is not readable here" % (where, theirs), expected="%r" % ours, fix=fix, code="schema"
    )


def _want(kind: Any, data: Any, where: str) -> None:
    if type(data) is not kind:
        raise ContractError("%s: expected %s, got %s" % (where, _name(kind), _shown(data)), code="wrong-type")


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _shown(data: Any) -> str:
    try:
        return "%s %.80r" % (type(data).__name__, data)
    except RecursionError:  # what a hostile document nests, Python cannot show
        return "%s, nested too deep to show" % type(data).__name__
