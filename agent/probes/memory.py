"""Memory of the board and of this process, in bytes."""

from __future__ import annotations

from typing import Any, Dict, Optional

from agent.probes.files import key_values, number, read_text


def available(root: str = "/") -> bool:
    """Whether /proc/meminfo is there."""
    return read_text(root, "/proc/meminfo") is not None


def read(root: str = "/") -> Dict[str, Any]:
    """Memory that a new process could have."""
    free = _kib(read_text(root, "/proc/meminfo"), "MemAvailable")
    unread = {} if free is not None else {"memory_available": "/proc/meminfo has no MemAvailable"}
    return {"memory_available": free, "unread": unread}


def total(root: str = "/") -> Optional[int]:
    """All memory of the board."""
    return _kib(read_text(root, "/proc/meminfo"), "MemTotal")


def process_resident() -> Optional[int]:
    """This process's memory now."""
    return _kib(read_text("/", "/proc/self/status"), "VmRSS")


def process_peak() -> Optional[int]:
    """The most this process ever held. Not ru_maxrss, which Linux carries over from the parent through exec."""
    return _kib(read_text("/", "/proc/self/status"), "VmHWM")


def _kib(text: Optional[str], key: str) -> Optional[int]:
    found = number(key_values(text or "").get(key, ""))
    return None if found is None else int(found) * 1024
