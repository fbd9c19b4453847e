"""What the host asks of the agent: one of these goes in as JSON on the first line of standard input."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional

from agent.contract.manifest import Tolerance


@dataclasses.dataclass(frozen=True)
class Job:
    """`verb` picks the handler. `root` is edgepack's folder on the device ("~" is expanded there). `id` names the result that
    is written on the device before it is sent.
    """

    id: str
    verb: str
    root: str = "~/.edgepack"
    arguments: Dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: str = "edgepack.job/1"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a model is loaded and run. `threads` 0 leaves the runtime's default; `provider` "" takes the bundle's own."""

    threads: int = 0
    provider: str = ""
    session_options: Dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """One measurement: `rounds` fresh processes that share `seconds` of measuring, or exactly `runs` timed inferences."""

    digest: str
    threads: int = 0
    provider: str = ""
    seconds: float = 3.0
    runs: Optional[int] = None
    rounds: int = 3
    warmup_seconds: float = 0.5
    warmup_runs: int = 5
    lock_clocks: bool = False  # a Jetson's, for the time of the run


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """Run the golden inputs and compare; `tolerance` overrides the bundle's own."""

    digest: str
    threads: int = 0
    provider: str = ""
    tolerance: Optional[Tolerance] = None
