"""Several requests at once, as a server sees them: how many inferences a second, and what each then takes."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from agent.measure import sampler


def together(runners: List[Any], feed: Dict[str, Any], seconds: float, runs: Optional[int]) -> Tuple[List[int], int]:
    """Each runner in a thread of its own, all begun at once: the samples, stream after stream, and the time in ns that all
    of it took. `runs` are shared out. The runtimes leave the interpreter's lock while they compute, so the streams overlap;
    what Python does between two inferences does not. Raises what a stream raised.
    """
    count = len(runners)
    gate = threading.Barrier(count + 1)
    taken: List[List[int]] = [[] for _ in runners]
    failed: List[BaseException] = []

    def stream(index: int, call: Callable[..., Any], lead: Any) -> None:
        share = None if runs is None else runs // count + (1 if index < runs % count else 0)
        gate.wait()
        try:
            taken[index] = sampler.loop(call, feed, seconds, share, lead)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the threads are joined
            failed.append(error)

    threads = []
    for index, runner in enumerate(runners):
        call, lead = runner.timed() if hasattr(runner, "timed") else (runner.run, None)
        threads.append(threading.Thread(target=stream, args=(index, call, lead), daemon=True))
        threads[-1].start()
    gc.collect()
    gc.disable()
    try:
        begun = time.perf_counter_ns()
        gate.wait()
        for thread in threads:
            thread.join()
        wall = time.perf_counter_ns() - begun
    finally:
        gc.enable()
    if failed:
        raise failed[0]
    return [sample for times in taken for sample in times], wall
