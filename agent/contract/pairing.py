"""Two bundles measured in turn on one device: what is asked, and what was seen. Every duration is in nanoseconds."""

from __future__ import annotations

import dataclasses
from typing import List, Optional

from agent.contract.facts import DeviceFacts
from agent.contract.finding import Finding
from agent.contract.report import Parity, ProbeReading, RuntimeUsed


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """`rounds` pairs of fresh processes share `seconds` of measuring (null: what these models' speed asks for), in blocks of
    about `block_seconds`, in the order A B B A.
    """

    a: str
    b: str
    threads: int = 0
    provider: str = ""
    rounds: int = 12
    seconds: Optional[float] = None
    block_seconds: float = 0.01
    warmup_seconds: float = 0.25
    warmup_runs: int = 5


@dataclasses.dataclass(frozen=True)
class Quad:
    """Blocks A B B A without anything in between: `a_ns` and `b_ns` hold the first and the second block of each side."""

    a_ns: List[List[int]]
    b_ns: List[List[int]]


@dataclasses.dataclass(frozen=True)
class PairRound:
    """Two fresh processes that live side by side, of which only one works at any moment."""

    quads: List[Quad]
    before: ProbeReading
    after: ProbeReading


@dataclasses.dataclass(frozen=True)
class PairSide:
    """One of the two bundles, as it ran."""

    bundle: str
    name: str
    target: str
    recipe: str
    runtime: RuntimeUsed
    parity: Optional[Parity]
    model_bytes: int


@dataclasses.dataclass(frozen=True)
class Pairing:
    """All samples of both sides, in order, with every doubt. `seconds` is the whole job's time on the device."""

    job: str
    a: PairSide
    b: PairSide
    options: PairOptions
    rounds: List[PairRound]
    facts: DeviceFacts
    started_unix: float
    seconds: float
    findings: List[Finding]
    schema: str = "edgepack.pairing/1"
