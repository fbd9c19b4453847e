"""Quantities as people write them: a number and its unit, never a bare number."""

from __future__ import annotations

import re
from decimal import Decimal

from agent.contract.errors import ContractError, nearest

# IEC 80000-13 (powers of 1024) beside SI (powers of 1000): both are in use, and 7 % apart at the gigabyte.
BYTES = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
HERTZ = {"Hz": 1, "kHz": 1000, "MHz": 1000**2, "GHz": 1000**3}
_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[A-Za-z]+)", re.ASCII)


def parse_bytes(text: object, where: str = "") -> int:
    """The bytes in "8 GiB" or "520 kB". Raises ContractError that names `where` (the key) and shows an example."""
    return _parse(text, where, "a size", BYTES, "8 GiB")


def parse_hertz(text: object, where: str = "") -> int:
    """The hertz in "2.4 GHz". Raises ContractError that names `where` (the key) and shows an example."""
    return _parse(text, where, "a frequency", HERTZ, "2.4 GHz")


def _parse(text: object, where: str, kind: str, units: dict[str, int], example: str) -> int:
    place = f"{where}: " if where else ""
    expected = f'a number and one of {", ".join(units)}, as in "{example}"'
    if not isinstance(text, str):
        raise ContractError(
            f"{place}{kind} is text with a unit, got {type(text).__name__} {text!r}", expected=expected, code="no-unit"
        )
    match = _QUANTITY.fullmatch(text)
    if match is None:
        code = "no-unit" if re.fullmatch(r"[\d.]+", text) else "not-a-quantity"
        raise ContractError(f"{place}{text!r} is not {kind} with a unit", expected=expected, code=code)
    unit = match["unit"]
    if unit not in units:
        near = nearest(unit, units)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise ContractError(f"{place}{unit!r} is not a unit of {kind}{hint}", expected=expected, code="wrong-unit")
    value = Decimal(match["number"]) * units[unit]
    if value != int(value) or value == 0:
        raise ContractError(f"{place}{text!r} is not a whole, positive number", expected=expected, code="not-whole")
    return int(value)
