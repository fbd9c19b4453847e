"""What a device is: read by probes, null with a reason where it could not be read."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Optional

from agent.contract.finding import Finding


@dataclasses.dataclass(frozen=True)
class RuntimeFacts:
    """A runtime as it is installed in the device's interpreter; `error` is why it does not import."""

    name: str
    version: Optional[str]
    providers: List[str] = dataclasses.field(default_factory=list)
    error: str = ""


@dataclasses.dataclass(frozen=True)
class DeviceFacts:
    """The device, as its own kernel and interpreter tell it. Bytes are bytes."""

    hostname: str
    model: str  # the board's name from the device tree, or the CPU's
    machine: str  # uname -m
    kernel: str
    os: str
    python: str
    python_path: str
    libc: str
    numpy: Optional[str]
    runtimes: List[RuntimeFacts]
    cpu_model: str
    cpu_cores: int
    cpu_features: List[str]
    memory_total: Optional[int]
    memory_available: Optional[int]
    disk_free: Optional[int]
    root: str
    clock_unix: float
    unread: Dict[str, str] = dataclasses.field(default_factory=dict)  # what could not be read: why
    schema: str = "edgepack.facts/1"


@dataclasses.dataclass(frozen=True)
class DoctorReport:
    """Facts and what is wrong with them; `interpreters` are the Pythons found, with what each holds."""

    facts: DeviceFacts
    findings: List[Finding]
    interpreters: List[Dict[str, str]] = dataclasses.field(default_factory=list)
    schema: str = "edgepack.doctor/1"
