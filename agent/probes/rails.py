"""Rails whose power or energy can be read: hwmon's power and energy inputs, powercap's counters (RAPL), a Jetson's INA3221.

Sources: the kernel's Documentation/hwmon/sysfs-interface (power in microwatts, energy in microjoules) and
Documentation/power/powercap (energy_uj, max_energy_range_uj; readable by root only since the PLATYPUS attack of 2020).
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from agent.probes import jetson
from agent.probes.files import listing, read_int, read_text

_ZONES = "/sys/class/powercap/intel-rapl:[0-9]*"  # AMD's driver names its zones so, too


def available(root: str = "/") -> bool:
    """Whether any rail can be read."""
    return bool(powers(root) or counters(root))


def read(root: str = "/") -> Dict[str, Any]:
    """Power at this moment, by rail; nothing at all where there is no rail: `why_none` is told with the energy."""
    found = powers(root)
    return {"power_mw": found, "unread": {}} if found else {"unread": {}}


def powers(root: str = "/") -> Dict[str, float]:
    """Milliwatts at this moment, by rail; {} where nothing tells them."""
    found = jetson.power(root)
    for path in listing(root, "/sys/class/hwmon/hwmon*/power[0-9]*_input"):
        value = read_int(root, path)
        if value is not None:
            found[_label(root, path, "_input")] = value / 1e3
    return found


def counters(root: str = "/") -> Dict[str, Tuple[float, float]]:
    """Joules so far by rail, each with the joules at which its counter begins anew (0: never)."""
    found: Dict[str, Tuple[float, float]] = {}
    for zone in listing(root, _ZONES):
        used = read_int(root, zone + "/energy_uj")
        if used is None:
            continue
        name = read_text(root, zone + "/name") or zone.rpartition("/")[2]
        if zone.count(":") > 1:  # core, uncore, dram: inside a package
            name = "%s/%s" % (read_text(root, zone.rpartition(":")[0] + "/name") or "", name)
        found[name] = (used / 1e6, (read_int(root, zone + "/max_energy_range_uj") or 0) / 1e6)
    for path in listing(root, "/sys/class/hwmon/hwmon*/energy[0-9]*_input"):
        value = read_int(root, path)
        if value is not None:
            found[_label(root, path, "_input")] = (value / 1e6, 0.0)
    return found


def why_none(root: str = "/") -> str:
    """Why nothing can be read here."""
    zones: List[str] = listing(root, _ZONES)
    if zones:
        return "powercap's counters are there, but only root may read them"
    return "no rail: neither an INA3221, nor power or energy in hwmon, nor powercap"


def _label(root: str, path: str, ending: str) -> str:
    own = read_text(root, path[: -len(ending)] + "_label")
    folder, _, name = path.rpartition("/")
    return own or "%s %s" % (read_text(root, folder + "/name") or folder.rpartition("/")[2], name[: -len(ending)])
