"""The command that measures the same again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.contract.protocol import Protocol
    from packager.results.store import Stored


def repeat(one: Stored) -> str:
    """The bundle by the name that `build` gives it, evaluation data by a stand-in: a report cannot know where they lie."""
    report = one.report
    words = ["edgepack", "bench", f"{report.name}-{report.target}.edgepack", one.device]
    if report.runtime.threads:
        words += ["--threads", str(report.runtime.threads)]
    if report.protocol is not None and report.protocol.provider:
        words += ["--provider", report.protocol.provider]
    words += _how_much(one) if report.protocol is None else _asked(report.protocol)
    if report.profile is not None:
        words.append("--profile")
    if report.accuracy is not None:
        words += ["--eval", "DATA.npz", "--metric", report.accuracy.metric]
    return shlex.join(words)


def _how_much(one: Stored) -> list[str]:
    """For a report without a protocol: as many inferences as it holds."""
    counts = [len(part.samples_ns) for part in one.report.rounds]
    return ["--rounds", str(len(counts)), "--runs", str(sum(counts))] if counts else []


def _asked(protocol: Protocol) -> list[str]:
    words = ["--batch", str(protocol.batch)] if protocol.batch else []
    if protocol.streams > 1:
        words += ["--streams", str(protocol.streams)]
    if protocol.lock_clocks:
        words.append("--lock-clocks")
    if protocol.sustained_minutes:
        return [*words, "--sustained", f"{protocol.sustained_minutes:g}"]
    words += ["--rounds", str(protocol.rounds)]
    if protocol.runs is not None:
        return [*words, "--runs", str(protocol.runs)]
    return [*words, "--seconds", f"{protocol.seconds:g}"]
