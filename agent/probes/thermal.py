"""Temperature and throttling, where the kernel tells them."""

from __future__ import annotations

from typing import Any, Dict, Optional

from agent.probes.files import listing, read_int, read_text

_ZERO_CELSIUS_LIMITS = (-40.0, 150.0)  # a sensor outside is not one of the board's temperature


def available(root: str = "/") -> bool:
    """Whether there is a thermal zone or a throttling flag."""
    return bool(listing(root, "/sys/class/thermal/thermal_zone*")) or _throttled(root) is not None


def read(root: str = "/") -> Dict[str, Any]:
    """The hottest zone in degrees Celsius, and whether the board is throttled now."""
    unread: Dict[str, str] = {}
    temperatures = []
    for zone in listing(root, "/sys/class/thermal/thermal_zone*"):
        value = read_int(root, zone + "/temp")
        if value is not None and _ZERO_CELSIUS_LIMITS[0] < value / 1000 < _ZERO_CELSIUS_LIMITS[1]:
            temperatures.append(value / 1000)
    if not temperatures:
        unread["temperature_c"] = "no thermal zone can be read"
    throttled = _throttled(root)
    if throttled is None:
        unread["throttled"] = "this board has no throttling flag that edgepack knows"
    return {"temperature_c": max(temperatures) if temperatures else None, "throttled": throttled, "unread": unread}


def _throttled(root: str) -> Optional[bool]:
    # Raspberry Pi firmware: bits 0-3 are "now": under-voltage, frequency capped, throttled, soft temperature limit.
    for path in listing(root, "/sys/devices/platform/soc*/*firmware/get_throttled"):
        text = read_text(root, path)
        if text:
            try:
                return bool(int(text, 16) & 0xF)
            except ValueError:
                return None
    # Elsewhere a cooling device of the processor that is active means that the clock is held down.
    states = []
    for device in listing(root, "/sys/class/thermal/cooling_device*"):
        kind = (read_text(root, device + "/type") or "").lower()
        state = read_int(root, device + "/cur_state")
        if "cpufreq" in kind or "processor" in kind:
            states.append(state)
    known = [state for state in states if state is not None]
    return any(known) if known else None
