"""Jetson boards: L4T and JetPack, power mode, GPU clock and load, power rails, throttling. Read only; nothing is changed.

Sources: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance" (nvpmodel, INA3221 rails, over-current
event counters, throttle-alert cooling devices); the kernel's documentation of devfreq and hwmon.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Tuple

from agent.probes.files import listing, read_int, read_text

# NVIDIA's archive of JetPack releases: L4T -> JetPack. Used only where the package nvidia-jetpack is not installed.
_JETPACK = {
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.2.0": "6.0 DP",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "38.2.0": "7.0",
    "39.2.0": "7.2",
}
# The GPU's name in the device tree: Orin of JetPack 6, Orin of 5, Xavier, TX2, Nano.
_GPUS = ("gpu", "ga10b", "gv11b", "gp10b", "gm20b")
_ALERT = re.compile(r"throttle-alert|hot-surface-alert")


def available(root: str = "/") -> bool:
    """Whether this is a Jetson: its L4T release file or its device tree say so."""
    return read_text(root, "/etc/nv_tegra_release") is not None or bool(_soc(root))


def read(root: str = "/") -> Dict[str, Any]:
    """The board at this moment: MHz, share of load, milliwatts by rail. Nothing at all on what is no Jetson."""
    if not available(root):
        return {"unread": {}}
    unread: Dict[str, str] = {}
    gpu = _gpu(root)
    clock, load, locked = None, None, None
    if gpu is None:
        unread["gpu_mhz"] = unread["gpu_load"] = "no devfreq entry of a GPU: not a Jetson kernel, or in a container"
    else:
        hertz = read_int(root, gpu + "/cur_freq")
        clock = None if hertz is None else hertz / 1e6
        permille = read_int(root, gpu + "/device/load")
        load = None if permille is None else permille / 1000
        locked = _locked(root, gpu)
    for name, value in (("gpu_mhz", clock), ("gpu_load", load), ("clocks_locked", locked)):
        if value is None:
            unread.setdefault(name, "not readable")
    rails = power(root)
    if not rails:
        unread["power_mw"] = "no INA3221 rail can be read (it may need root, or the module has none)"
    mode = power_mode(root)
    if mode is None:
        unread["power_mode"] = "nvpmodel has left no status"
    throttled = _throttled(root)
    if throttled is None:
        unread["throttled"] = "no throttle-alert cooling device"
    return {
        "gpu_mhz": clock,
        "gpu_load": load,
        "clocks_locked": locked,
        "power_mw": rails or None,
        "power_mode": mode,
        "throttled": throttled,
        "unread": unread,
    }


def board(root: str = "/") -> Dict[str, Any]:
    """What stays until the system is updated: model, SoC, L4T, JetPack. {} on what is no Jetson."""
    if not available(root):
        return {}
    l4t = l4t_version(root)
    jetpack, source = jetpack_version(root, l4t)
    return {
        "model": read_text(root, "/proc/device-tree/model") or "",
        "soc": _soc(root),
        "l4t": l4t or "",
        "jetpack": jetpack,
        "jetpack_from": source,
    }


def l4t_version(root: str = "/") -> Optional[str]:
    """36.4.3, from "# R36 (release), REVISION: 4.3, ..."."""
    text = read_text(root, "/etc/nv_tegra_release") or ""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    if match is None:
        return None
    return "%s.%s" % match.groups()


def jetpack_version(root: str, l4t: Optional[str]) -> Tuple[str, str]:
    """The version and where it is from: the package's own, else the table by L4T, else neither."""
    package = package_version(root, "nvidia-jetpack")
    if package is not None:
        return package.partition("+")[0], "package nvidia-jetpack"
    if l4t is not None and l4t in _JETPACK:
        return _JETPACK[l4t], "L4T %s" % l4t
    return "", "unknown"


def package_version(root: str, name: str) -> Optional[str]:
    """The version of an installed Debian package, or None."""
    text = read_text(root, "/var/lib/dpkg/status") or ""
    for paragraph in text.split("\n\n"):
        if not paragraph.startswith("Package: %s\n" % name):
            continue
        match = re.search(r"^Version: (\S+)", paragraph, re.MULTILINE)
        if match and "\nStatus: install ok installed" in paragraph:
            return str(match.group(1))
    return None


def power_mode(root: str = "/") -> Optional[str]:
    """The active nvpmodel mode by name ("15W"), else by number ("mode 2")."""
    status = read_text(root, "/var/lib/nvpmodel/status") or ""
    match = re.search(r"pmode:0*(\d+)", status)
    if match is None:
        return None
    number = int(match.group(1))
    config = read_text(root, "/etc/nvpmodel.conf") or ""
    names = {int(one): name for one, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", config)}
    return str(names.get(number, "mode %d" % number))


def power(root: str = "/") -> Dict[str, float]:
    """Milliwatts by rail. On modules without an input rail (AGX Orin) their sum is the module's rails, not the board."""
    rails: Dict[str, float] = {}
    for folder in listing(root, "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"):
        for channel in (1, 2, 3):
            name = read_text(root, "%s/in%d_label" % (folder, channel))
            volts = read_int(root, "%s/in%d_input" % (folder, channel))
            amperes = read_int(root, "%s/curr%d_input" % (folder, channel))
            if name and name != "NC" and volts is not None and amperes is not None:
                rails[name] = volts * amperes / 1000
    return rails


def input_power(rails: Dict[str, float]) -> Optional[Tuple[str, float]]:
    """What the whole board or module draws, where a rail measures it: its name and milliwatts."""
    for name in ("VDD_IN", "POM_5V_IN", "VIN"):
        if name in rails:
            return name, rails[name]
    return None


def _soc(root: str) -> str:
    compatible = read_text(root, "/proc/device-tree/compatible") or ""
    chips = [name for name in compatible.split("\0") if re.fullmatch(r"nvidia,tegra\d+", name)]
    return chips[0].partition(",")[2] if chips else ""


def _gpu(root: str) -> Optional[str]:
    for entry in listing(root, "/sys/class/devfreq/*"):
        if read_text(root, entry + "/device/of_node/name") in _GPUS:
            return entry
    return None


def _locked(root: str, gpu: str) -> Optional[bool]:
    # What jetson_clocks does: the lowest clock is raised to the highest.
    low, high = read_int(root, gpu + "/min_freq"), read_int(root, gpu + "/max_freq")
    return None if low is None or high is None else low == high


def _throttled(root: str) -> Optional[bool]:
    states: List[int] = []
    for device in listing(root, "/sys/class/thermal/cooling_device*"):
        if _ALERT.search(read_text(root, device + "/type") or ""):
            state = read_int(root, device + "/cur_state")
            if state is not None:
                states.append(state)
    return any(states) if states else None


def overcurrent_events(root: str = "/") -> Optional[int]:
    """How often the power supply forced the clocks down since boot: the sum of the counters; None where there are none."""
    counts = [read_int(root, path) for path in listing(root, "/sys/class/hwmon/hwmon*/oc*_event_cnt")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
