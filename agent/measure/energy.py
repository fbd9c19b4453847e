"""Energy per inference, where a power rail can be read (INA3221 on Jetson modules): after the timed samples, so that reading
the sensor over I2C disturbs no latency. The sensor's readings are kept; joules are derived when they are read.

Mean power while running times seconds per inference; the power before the model was loaded is kept beside it, so that what
the idle board draws can be taken off. Source of the rails: NVIDIA's Jetson Linux Developer Guide, "Platform Power and
Performance". Not run on hardware.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Dict, List, Optional, Tuple

from agent.contract.report import Energy
from agent.probes import jetson

SUM = "sum of the module's rails"
_IDLE_READINGS = 10
_INTERVAL = 0.05
_SECONDS = 2.0


def rail(rails: Dict[str, float]) -> Optional[Tuple[str, float]]:
    """The rail that counts: what measures the whole board or module, else the sum of all; None without any."""
    if not rails:
        return None
    return jetson.input_power(rails) or (SUM, sum(rails.values()))


def idle(root: str = "/", readings: int = _IDLE_READINGS, interval: float = _INTERVAL) -> List[float]:
    """Milliwatts before the model is loaded; [] at once where no rail can be read."""
    found: List[float] = []
    for _ in range(readings):
        one = rail(jetson.power(root))
        if one is None:
            return []
        found.append(one[1])
        time.sleep(interval)
    return found


def measure(
    run: Callable[[], object], before: List[float], root: str = "/", seconds: float = _SECONDS
) -> Optional[Energy]:
    """Runs for `seconds` while a second thread reads the rail; None when `before` is empty or the rail went away."""
    first = rail(jetson.power(root)) if before else None
    if first is None:
        return None
    readings: List[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            now = rail(jetson.power(root))
            if now is not None:
                readings.append(now[1])
            done.wait(_INTERVAL)

    watcher = threading.Thread(target=watch, daemon=True)
    begin = time.perf_counter()
    watcher.start()
    count = 0
    try:
        while True:
            run()
            count += 1
            taken = time.perf_counter() - begin
            if taken >= seconds:
                break
    finally:
        done.set()
        watcher.join()
    if not readings:
        return None
    return Energy(rail=first[0], power_mw=readings, idle_mw=before, inferences=count, seconds=taken)
