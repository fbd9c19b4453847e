"""What the device said of one bundle: raw samples, verdicts, facts and every doubt. Statistics are derived when read."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

from agent.contract.facts import DeviceFacts
from agent.contract.finding import Finding
from agent.contract.protocol import Drawn, Profile, Protocol


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """One output against the original's: the worst golden sample counts. `cosine` is null where it is undefined (integers,
    or a vector of zeros); `argmax_agreement` is the share of golden samples with the same arg-max, null below two values.
    """

    name: str
    cosine: Optional[float]
    max_abs: Optional[float]
    argmax_agreement: Optional[float]
    verdict: str  # pass | fail
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Parity:
    """`pass` when every output passes."""

    verdict: str
    samples: int
    outputs: List[OutputParity]


@dataclasses.dataclass(frozen=True)
class ProbeReading:
    """The board at one moment: MHz, degrees Celsius; null with a reason in `unread`."""

    governor: Optional[str] = None
    frequency_mhz: Optional[List[float]] = None
    temperature_c: Optional[float] = None
    throttled: Optional[bool] = None
    load_1min: Optional[float] = None
    memory_available: Optional[int] = None
    gpu_mhz: Optional[float] = None
    gpu_load: Optional[float] = None  # 0 to 1
    power_mw: Optional[Dict[str, float]] = None  # by rail
    power_mode: Optional[str] = None
    clocks_locked: Optional[bool] = None
    unread: Dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a sustained run: `runs` inferences from `begin_ns` (since minute 0) on, of which `kept`, evenly taken, are
    the next of the round's samples. `reading` is the board at its end.
    """

    begin_ns: int
    wall_ns: int
    runs: int
    kept: int
    reading: ProbeReading


@dataclasses.dataclass(frozen=True)
class Round:
    """One fresh process: load, first inference, warm-up, samples. All times in nanoseconds, memory in bytes.

    `parts_ns` divides the samples as the runtime's own clock does (a GPU's copies and computing), where it has one.
    With `loops` above 1 each sample is the mean of so many inferences in a row, because the clock is coarse. Samples of
    several streams follow one another. `begun_ns` is the monotonic clock when sampling began, `wall_ns` how long it took;
    `others_cores` and `stolen_cores` are the processor time that other processes, and other guests of the host, took
    meanwhile, in cores.
    """

    load_ns: int
    first_ns: int
    warmup_ns: List[int]
    samples_ns: List[int]
    peak_memory_bytes: Optional[int]
    baseline_memory_bytes: Optional[int]  # the interpreter before numpy and the runtime
    before: ProbeReading
    after: ProbeReading
    parts_ns: Dict[str, List[int]] = dataclasses.field(default_factory=dict)
    loops: int = 1
    tick_ns: Optional[int] = None  # the clock's step, as Python sees it
    begun_ns: Optional[int] = None
    wall_ns: Optional[int] = None
    others_cores: Optional[float] = None
    stolen_cores: Optional[float] = None
    windows: List[Window] = dataclasses.field(default_factory=list)
    energy: Optional[Drawn] = None


@dataclasses.dataclass(frozen=True)
class RuntimeUsed:
    """The runtime as it ran. `placement` counts the graph's nodes by the provider that executed them."""

    name: str
    version: str
    provider: str  # asked for
    threads: int
    placement: Dict[str, int] = dataclasses.field(default_factory=dict)
    session_options: Dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Emulation:
    """An emulated machine. With `ns_per_instruction` its clock counts instructions: every duration in the report is a
    number of instructions times this. Null: its times are the emulator's, of no board.
    """

    cpu: str
    ns_per_instruction: Optional[float]


@dataclasses.dataclass(frozen=True)
class Scored:
    """A score, higher is better; `low` and `high` hold the truth with 95 %, null where nothing is known of it."""

    score: float
    low: Optional[float]
    high: Optional[float]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The bundle scored on labelled samples: by the device's kernels, and by the host's. `data` is the set's digest."""

    metric: str
    samples: int
    data: str
    device: Scored
    host: Optional[Scored]


@dataclasses.dataclass(frozen=True)
class Report:
    """`started_unix` is the device's clock; the host adds its own when it stores the report."""

    job: str
    bundle: str
    name: str
    target: str
    recipe: str
    runtime: RuntimeUsed
    parity: Optional[Parity]
    rounds: List[Round]
    facts: DeviceFacts
    model_bytes: int
    bundle_bytes: int
    source_bytes: int
    started_unix: float
    findings: List[Finding]
    emulation: Optional[Emulation] = None
    accuracy: Optional[Accuracy] = None
    protocol: Optional[Protocol] = None
    profile: Optional[Profile] = None
    schema: str = "edgepack.report/1"
