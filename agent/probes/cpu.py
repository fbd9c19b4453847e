"""The processor: what it can do (from /proc/cpuinfo), its governor, frequency and load."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple

from agent.probes.files import key_values, listing, number, read_int, read_text

# The kernel's name of a feature -> ours. Linux: arch/arm64 hwcaps, arch/x86 cpufeatures.
_FEATURES = {
    "asimd": "neon",
    "neon": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sse4_2": "sse4_2",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "amx_int8": "amx-int8",
}
# CPU part numbers of Arm Ltd. (implementer 0x41), from each core's Technical Reference Manual (MIDR_EL1).
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xc07": "Cortex-A7",
}

_HERTZ = 100.0  # USER_HZ: the unit of /proc/stat on every architecture that Linux has today
_LEAST_WORK_SECONDS = 0.5


def available(root: str = "/") -> bool:
    """Whether this is Linux with /proc."""
    return read_text(root, "/proc/cpuinfo") is not None


def read(root: str = "/") -> Dict[str, Any]:
    """Governor, current frequency of each core in MHz, load over one minute; `unread` says why not."""
    unread: Dict[str, str] = {}
    governor = read_text(root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor is None:
        unread["governor"] = "no cpufreq here (a virtual machine, or a kernel without it)"
    frequencies = _frequencies(root)
    if frequencies is None:
        unread["frequency_mhz"] = "neither cpufreq nor /proc/cpuinfo tells it"
    load = number(read_text(root, "/proc/loadavg") or "")
    if load is None:
        unread["load_1min"] = "/proc/loadavg is not readable"
    return {
        "governor": governor,
        "frequency_mhz": frequencies,
        "load_1min": load,
        "unread": unread,
    }


def features(root: str = "/") -> List[str]:
    """The instruction set extensions that matter for inference, by edgepack's names; sorted."""
    told = key_values(read_text(root, "/proc/cpuinfo") or "")
    words = (told.get("flags") or told.get("Features") or "").split()
    found = {_FEATURES[word] for word in words if word in _FEATURES}
    return sorted(found)


def model(root: str = "/") -> str:
    """The processor's name."""
    told = key_values(read_text(root, "/proc/cpuinfo") or "")
    if "model name" in told:
        return told["model name"]
    part = told.get("CPU part", "")
    return _ARM_PARTS.get(part, "CPU part %s" % part if part else "unknown")


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _frequencies(root: str) -> Optional[List[float]]:
    paths = listing(root, "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    values = [read_int(root, path) for path in paths]
    known = [value / 1000 for value in values if value]
    if known:
        return known
    text = read_text(root, "/proc/cpuinfo") or ""
    told = [number(line.partition(":")[2]) for line in text.splitlines() if line.startswith("cpu MHz")]
    return [value for value in told if value is not None] or None


class Work:
    """How busy the processors are from now on, by this process and by all others, as the kernel counts it (proc(5), stat)."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._begin = (time.monotonic(), _ticks(root), time.process_time())

    def of_others(self) -> Tuple[Optional[float], Optional[float]]:
        """In cores, since the beginning: what other processes took, and what the hypervisor gave to other guests. None where
        the kernel does not tell, or less than half a second has passed: it counts in hundredths.
        """
        (begin, first, own), last = self._begin, _ticks(self._root)
        past = time.monotonic() - begin
        if first is None or last is None or past < _LEAST_WORK_SECONDS:
            return None, None
        busy, stolen = ((after - before) / _HERTZ / past for before, after in zip(first, last))
        return max(0.0, busy - (time.process_time() - own) / past), max(0.0, stolen)


def _ticks(root: str) -> Optional[Tuple[int, int]]:
    """Hundredths of a second that all cores worked, and that were stolen: /proc/stat's first line."""
    words = (read_text(root, "/proc/stat") or "").split("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":  # noqa: PLR2004 - cpu user nice system idle iowait irq softirq steal
        return None
    user, nice, system, _, _, irq, soft, stolen = (int(word) for word in words[1:9])
    return user + nice + system + irq + soft, stolen
