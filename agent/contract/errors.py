"""One hierarchy of errors for host and device; an error crosses the wire as data and arrives as the same class."""

from __future__ import annotations

import difflib
from typing import Any, Dict, Iterable, List, Optional, Type


class EdgepackError(Exception):
    """Something the user can act on: what happened, where, what was expected, and what to do.

    `exit_code` is the command's exit status; `retry` says whether trying again may help.
    """

    exit_code = 1
    retry = False

    def __init__(self, what: str, *, where: str = "", expected: str = "", fix: str = "", code: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.fix = fix
        self.code = code

    def __str__(self) -> str:
        """The whole message, a line for each part that is known."""
        parts = [self.what]
        for label, text in (("where", self.where), ("expected", self.expected), ("what to do", self.fix)):
            if text:
                parts.append("  %s: %s" % (label, text.replace("\n", "\n    ")))
        return "\n".join(parts)

    def __reduce__(self) -> Any:
        """Errors are sent between processes."""
        return (_rebuild, (type(self), to_wire(self)))


class UsageError(EdgepackError):
    """The request itself is wrong: an unknown name, a bad option, a file that is not there."""

    exit_code = 2


class ContractError(UsageError):
    """A document (TOML or JSON) does not match its type."""


class ConvertError(EdgepackError):
    """The model cannot become what was asked for."""

    exit_code = 3


class DeviceError(EdgepackError):
    """The device refused, lacks something, or is not the one we know."""

    exit_code = 4


class TransientDeviceError(DeviceError):
    """The device or the link failed in a way that another try may cure."""

    exit_code = 5
    retry = True


class BudgetError(EdgepackError):
    """A gate or a budget (accuracy, size, speed, parity) was not met."""

    exit_code = 6


class IntegrityError(EdgepackError):
    """A digest, a signature or an archive's structure is not what it must be."""

    exit_code = 7


_KINDS: Dict[str, Type[EdgepackError]] = {
    kind.__name__: kind
    for kind in (
        EdgepackError,
        UsageError,
        ContractError,
        ConvertError,
        DeviceError,
        TransientDeviceError,
        BudgetError,
        IntegrityError,
    )
}
_FIELDS = ("what", "where", "expected", "fix", "code")


def to_wire(error: EdgepackError) -> Dict[str, str]:
    """The error as a JSON object. A class of its own outside this file travels as its nearest ancestor here."""
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS)
    document = {name: str(getattr(error, name)) for name in _FIELDS}
    document["kind"] = kind
    return document


def from_wire(document: Any) -> EdgepackError:
    """The error that `to_wire` described. What does not fit becomes a DeviceError that shows the document."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        return DeviceError("the device reported an error that this version cannot read: %.500r" % (document,))
    texts = {name: str(document.get(name, ""))[:20000] for name in _FIELDS}
    return _KINDS[kind](texts.pop("what"), **texts)


def _rebuild(kind: Type[EdgepackError], document: Dict[str, str]) -> EdgepackError:
    texts = {name: document[name] for name in _FIELDS}
    return kind(texts.pop("what"), **texts)


def nearest(name: str, known: Iterable[str]) -> Optional[str]:
    """The known name most like `name`, or None."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def unknown_name(kind: str, name: str, known: Iterable[str], *, fix: str = "") -> UsageError:
    """An unknown name: lists the known ones and the nearest."""
    names: List[str] = sorted(known)
    near = nearest(name, names)
    what = "unknown %s %r" % (kind, name) + (" (did you mean %r?)" % near if near else "")
    return UsageError(what, expected="one of: %s" % (", ".join(names) or "none is known"), fix=fix, code="unknown-name")
