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
    who: str = ""  # user@host that asks, for the audit log: a claim, not a proof
    schema: str = "edgepack.job/1"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a model is loaded and run. `threads` 0 leaves the runtime's default; `provider` "" takes the bundle's own."""

    threads: int = 0
    provider: str = ""
    session_options: Dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """One measurement: `rounds` fresh processes that share `seconds` of measuring, or exactly `runs` timed inferences.

    `sustained_minutes` takes their place: one process, from its first inference on. `batch` 0 is the model's own.
    """

    digest: str
    threads: int = 0
    provider: str = ""
    seconds: float = 3.0
    runs: Optional[int] = None
    rounds: int = 3
    warmup_seconds: float = 0.5
    warmup_runs: int = 5
    lock_clocks: bool = False  # a Jetson's, for the time of the run
    wait_seconds: float = 600.0  # for whoever has the device now
    threads_auto: bool = False  # the fastest number of threads is looked for first
    batch: int = 0
    streams: int = 1
    sustained_minutes: float = 0.0
    profile: bool = False


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """Run the golden inputs and compare; `tolerance` overrides the bundle's own."""

    digest: str
    threads: int = 0
    provider: str = ""
    tolerance: Optional[Tolerance] = None


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """Run a bundle on many samples. `inputs` maps each input's name to the sha256 (hex) of a .npy whose first axis is the
    run; `sizes` are the files' bytes by sha256. With `only_ask` nothing is run: which files are missing, and what is free.
    """

    digest: str
    inputs: Dict[str, str]
    sizes: Dict[str, int]
    threads: int = 0
    provider: str = ""
    only_ask: bool = False
