"""What a board draws while it works: its rails are read meanwhile, and joules cut to any stretch of that time."""

from __future__ import annotations

import threading
import time
from typing import Dict, List, Optional, Tuple

from agent.probes import rails

_PERIOD = 0.1  # more often would cost the work something
_LEAST = 2


class Meter:
    """Reads all rails every `period` seconds in a thread, in a `with` statement; does nothing where there is none."""

    def __init__(self, root: str = "/", period: float = _PERIOD) -> None:
        self._root, self._period = root, period
        self._seen: List[Tuple[int, Dict[str, float]]] = []  # monotonic ns, joules since the first reading
        self._last: Dict[str, float] = {}
        self._end = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self.found = rails.available(root)

    def __enter__(self) -> "Meter":  # noqa: PYI034, UP037 - typing.Self is newer than 3.8
        if self.found:
            self.read()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self.read()

    def _watch(self) -> None:
        while not self._end.wait(self._period):
            self.read()

    def read(self) -> None:
        """One more reading. Power between two readings is taken as the mean of both; counters count by themselves."""
        counted, drawn, now = rails.counters(self._root), rails.powers(self._root), time.perf_counter_ns()
        joules: Dict[str, float] = {}
        past = self._seen[-1] if self._seen else None
        for name, (value, range_) in counted.items():
            step = value - self._last.get(name, value)
            joules[name] = (past[1].get(name, 0.0) if past else 0.0) + (step if step >= 0 else step + range_)
            self._last[name] = value
        for name, milliwatts in drawn.items():
            step = 0.0
            if past is not None:
                step = (milliwatts + self._last.get(name, milliwatts)) / 2e3 * (now - past[0]) / 1e9
            joules[name] = (past[1].get(name, 0.0) if past else 0.0) + step
            self._last[name] = milliwatts
        self._seen.append((now, joules))

    def between(self, begin_ns: int, end_ns: int) -> Dict[str, float]:
        """Joules by rail from one moment of the monotonic clock to another, straight lines between the readings."""
        if len(self._seen) < _LEAST:
            return {}
        names = self._seen[-1][1]
        return {name: self._at(name, end_ns) - self._at(name, begin_ns) for name in names}

    def mean_mw(self) -> Dict[str, float]:
        """The mean power by rail over all that was read."""
        if len(self._seen) < _LEAST:
            return {}
        first, last = self._seen[0][0], self._seen[-1][0]
        return {name: joules / ((last - first) / 1e9) * 1e3 for name, joules in self.between(first, last).items()}

    def _at(self, name: str, when: int) -> float:
        before, after = self._seen[0], self._seen[-1]
        for one in self._seen:
            if one[0] <= when:
                before = one
            else:
                after = one
                break
        left, right = before[1].get(name, 0.0), after[1].get(name, 0.0)
        if after[0] <= before[0] or when <= before[0]:
            return left
        return left + (right - left) * min(1.0, (when - before[0]) / (after[0] - before[0]))
