"""What a report holds beside its samples, as documents: throughput, the sustained course, energy, and where the time goes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agent.contract import codec, statistics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.contract.protocol import Layer
    from agent.contract.report import ProbeReading, Report


@dataclasses.dataclass(frozen=True)
class Point:
    """One window of a sustained run: minutes since its start, its inferences, milliseconds, and the board at its end."""

    minute: float
    n: int
    p50_ms: float
    p95_ms: float | None
    per_s: float
    mhz: float | None
    celsius: float | None
    throttled: bool | None
    reading: ProbeReading


def throughput(report: Report) -> float | None:
    """Samples a second: a batch counts as many as it holds, and streams run side by side. None without samples."""
    rounds = [one for one in report.rounds if one.samples_ns]
    if not rounds:
        return None
    protocol = report.protocol
    several = protocol is not None and protocol.streams > 1
    if several:
        total = sum(one.wall_ns or sum(one.samples_ns) for one in rounds)
    else:
        total = sum(sum(one.samples_ns) for one in rounds)
    count = sum(len(one.samples_ns) for one in rounds)
    batch = (protocol.batch if protocol is not None else 0) or 1
    return count * batch * 1e9 / total if total else None


def points(report: Report) -> list[Point]:
    """The sustained course from minute 0 on; empty where the run was not sustained."""
    return [point for one in report.rounds for point in _points(one.windows, one.samples_ns)]


def _points(windows: Sequence[Any], samples: list[int]) -> Iterator[Point]:
    place = 0
    for window in windows:
        part = samples[place : place + max(0, window.kept)]
        place += len(part)
        if not part or window.wall_ns <= 0:
            continue  # a device may say anything: a window without samples has nothing to show
        numbers = statistics.summary(part)
        board = window.reading
        yield Point(
            minute=(window.begin_ns + window.wall_ns / 2) / 6e10,
            n=window.runs,
            p50_ms=numbers["p50"] / 1e6,
            p95_ms=None if numbers["p95"] is None else numbers["p95"] / 1e6,
            per_s=window.runs * 1e9 / window.wall_ns,
            mhz=max(board.frequency_mhz) if board.frequency_mhz else None,
            celsius=board.temperature_c,
            throttled=board.throttled,
            reading=board,
        )


def fewer(found: list[Point], most: int) -> list[Point]:
    """At most so many, evenly taken, the first and the last among them: for a table."""
    if len(found) <= most:
        return found
    step = (len(found) - 1) / (most - 1)
    return [found[round(index * step)] for index in range(most)]


def sustained_document(report: Report) -> dict[str, Any] | None:
    """The course, and its end over its beginning: medians of the first and the last tenth of the windows."""
    found = points(report)
    if not found:
        return None
    edge = max(1, len(found) // 10)
    first, last = (
        float(statistics.summary([round(p.p50_ms * 1e6) for p in part])["p50"])
        for part in (found[:edge], found[-edge:])
    )
    rows = [{key: value for key, value in vars(point).items() if key != "reading"} for point in found]
    return {
        "minutes": report.protocol.sustained_minutes if report.protocol else found[-1].minute,
        "begin_p50_ms": first / 1e6,
        "end_p50_ms": last / 1e6,
        "end_over_begin": last / first,
        "unread": found[0].reading.unread,
        "windows": rows,
    }


def profile_document(report: Report) -> dict[str, Any] | None:
    """The layers with their share of the time of all, and the share that conversion added."""
    profile = report.profile
    if profile is None:
        return None
    document: dict[str, Any] = codec.encode(profile)
    for row, share in zip(document["layers"], shares(profile.layers), strict=True):
        row["share"] = share
    document["overhead_share"] = overhead_share(profile.layers)
    return document


def shares(layers: Sequence[Layer]) -> list[float]:
    """Each layer's share of all layers' time."""
    total = sum(layer.time_ns for layer in layers) or 1.0
    return [layer.time_ns / total for layer in layers]


def overhead_share(layers: Sequence[Layer]) -> float | None:
    """What conversion added: transposing, padding, reordering, quantising and back. None without layers."""
    if not layers:
        return None
    return sum(share for share, layer in zip(shares(layers), layers, strict=True) if layer.overhead)
