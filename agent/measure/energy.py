"""Energy of an inference, where rails can be read: after the timed samples, so that reading a sensor over I2C disturbs no
latency. What the rails draw before the model is loaded is kept beside it, so that the idle board's share can be taken off.

Source of a Jetson's rails: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance". Not run on hardware.
"""

from __future__ import annotations

import time
from typing import Callable, Dict

from agent.contract.protocol import Drawn
from agent.measure.meter import Meter
from agent.probes import jetson, rails

SUM = "sum of the module's rails"
_IDLE_SECONDS = 0.5
_SECONDS = 2.0


def idle(root: str = "/", seconds: float = _IDLE_SECONDS) -> Dict[str, float]:
    """Milliwatts by rail while nothing is asked of the board; {} at once where no rail can be read."""
    with Meter(root) as meter:
        if meter.found:
            time.sleep(seconds)
    return _whole(meter.mean_mw(), root)


def measure(run: Callable[[], object], before: Dict[str, float], root: str = "/", seconds: float = _SECONDS) -> Drawn:
    """Runs for `seconds` while the rails are read; nothing runs where there is none, and `unread` says why."""
    count = 0
    with Meter(root) as meter:
        begin = time.perf_counter_ns()
        end = begin
        while meter.found and end - begin < seconds * 1e9:
            run()
            count += 1
            end = time.perf_counter_ns()
    joules = _whole(meter.between(begin, end), root) if count else {}
    return Drawn(joules, before, (end - begin) / 1e9, count, "" if joules else rails.why_none(root))


def _whole(found: Dict[str, float], root: str) -> Dict[str, float]:
    """With the sum of an INA3221's rails where none of them measures the whole board (AGX Orin)."""
    module = jetson.power(root)
    if not module or not found or jetson.input_power(module) is not None:
        return found
    return {**found, SUM: sum(value for name, value in found.items() if name in module)}
