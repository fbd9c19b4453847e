"""What a runner that prepares is given, and what it hands back."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Optional

from agent.contract.finding import Finding


@dataclasses.dataclass(frozen=True)
class Workshop:
    """`root` is a folder for caches. `call(function, arguments, seconds)` runs a function of the runner's own module in a
    fresh process, the keyword `progress` added. `board` is what does not change until the system is updated.
    """

    root: str
    call: Callable[..., Any]
    progress: Callable[[str], None]
    memory_available: Optional[int]
    board: Dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The options that the runner shall be loaded with, and what the report must say."""

    options: Dict[str, Any]
    findings: List[Finding] = dataclasses.field(default_factory=list)
