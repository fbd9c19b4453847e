"""A finding: a doubt or a fact worth saying, kept with what it is about, with advice."""

from __future__ import annotations

import dataclasses

INFO, WARNING, ERROR = "info", "warning", "error"


@dataclasses.dataclass(frozen=True)
class Finding:
    """`code` is stable and for machines; `message` says what, `advice` what to do (may be empty)."""

    code: str
    level: str
    message: str
    advice: str = ""
