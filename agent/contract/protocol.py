"""How a report was measured, what it drew, and where the time went: parts of a report beside its rounds."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Optional


@dataclasses.dataclass(frozen=True)
class Protocol:
    """As it was asked for. `batch` 0 is the model's own; `threads_tried` are the medians (ns) that --threads auto chose by."""

    seconds: float
    runs: Optional[int]
    rounds: int
    warmup_seconds: float
    warmup_runs: int
    batch: int = 0
    streams: int = 1
    sustained_minutes: float = 0.0
    lock_clocks: bool = False
    provider: str = ""  # as asked; empty: the bundle's own
    threads_tried: Dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Joules by rail while `inferences` ran in `seconds`, after the samples.

    `idle_mw` is what the rails drew before the model was loaded. Rails may contain one another (a package its cores), so
    they are not to be added up. Without a rail `unread` says why.
    """

    joules: Dict[str, float]
    idle_mw: Dict[str, float]
    seconds: float
    inferences: int
    unread: str = ""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One node as the runtime executed it; `time_ns` is the mean of the middle half of its times.

    `overhead`: conversion only, no computing of the model's own (transposing, padding, quantising). `original` are the
    nodes of the bundle's model that it stands for.
    """

    name: str
    kind: str
    provider: str
    time_ns: float
    overhead: bool
    original: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Profile:
    """Layers in the order they ran, over `runs` inferences. Profiling costs time itself: the samples are not from here.

    `total_ns` is such a mean of whole inferences while profiled. Without layers `unread` says why.
    """

    layers: List[Layer]
    runs: int
    total_ns: float
    unread: str = ""
