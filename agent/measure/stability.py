"""Doubts about a measurement, each with advice; they are stored with the numbers and shown wherever these are."""

from __future__ import annotations

from typing import List, Optional

from agent.contract import statistics
from agent.contract.finding import ERROR, INFO, WARNING, Finding
from agent.contract.manifest import Manifest
from agent.contract.pairing import PairRound
from agent.contract.report import Parity, ProbeReading, Round
from agent.measure import doubts

_CLOCK_FALL = 0.9  # below this share of the clock at the start, the speed of the run is not the board's
_ROUNDS_APART = 1.10  # medians of rounds further apart than this: something else ran
_SPREAD = 1.5  # p90 over p50
_BUSY = 0.5  # load per core before the run began
_STEADY_SAMPLES = 20


def findings(rounds: List[Round], parity: Optional[Parity], manifest: Manifest) -> List[Finding]:
    """What the one who reads the numbers must know."""
    found = of_check(parity, manifest)
    samples = [sample for one in rounds for sample in one.samples_ns]
    if not samples:
        return found
    found += _spread(rounds, samples)
    found += doubts.of_samples(rounds)
    for one in rounds:
        for board in [window.reading for window in one.windows]:
            found += _board(one.before, board)
        found += _board(one.before, one.after)
    return once(found)


def before(board: ProbeReading) -> List[Finding]:
    """What the board's state says of a measurement that has yet to begin."""
    return once(_board(board, board))


def of_pair(rounds: List[PairRound]) -> List[Finding]:
    """What the board did while two bundles were compared. Interleaving cancels much of it, but not all."""
    return once([finding for one in rounds for finding in _board(one.before, one.after)])


def of_check(parity: Optional[Parity], manifest: Manifest) -> List[Finding]:
    """Doubts about what the bundle computes."""
    found: List[Finding] = []
    if parity is None:
        found.append(
            Finding(
                "no-golden",
                WARNING,
                "the bundle has no golden vectors: nothing was checked",
                "build it again with them",
            )
        )
    elif parity.verdict != "pass":
        bad = ", ".join(output.name for output in parity.outputs if output.verdict != "pass")
        found.append(
            Finding(
                "parity",
                ERROR,
                "the device's outputs differ from the original's: %s" % bad,
                "try another recipe, or real calibration data; compare with `edgepack check` on another device",
            )
        )
    random = manifest.calibration is not None and manifest.calibration.kind == "random"
    if random and not any(finding.code == "random-calibration" for finding in manifest.findings):
        found.append(random_calibration())
    return found


def random_calibration() -> Finding:
    """The stamp on every bundle and report whose ranges come from noise."""
    return Finding(
        "random-calibration",
        WARNING,
        "calibrated on random data: speed and size are true, accuracy is not",
        "give real samples with --calibration",
    )


def _spread(rounds: List[Round], samples: List[int]) -> List[Finding]:
    found: List[Finding] = []
    numbers = statistics.summary(samples)
    missing = [name for name in ("p90", "p95", "p99") if numbers[name] is None]
    if missing:
        text = "%d samples are too few for %s" % (len(samples), ", ".join(missing))
        found.append(Finding("few-samples", INFO, text, "measure longer: --seconds or --runs"))
    if numbers["p90"] is not None and numbers["p90"] > _SPREAD * numbers["p50"]:
        text = "one inference in ten takes more than %.1f times the median" % (numbers["p90"] / numbers["p50"])
        found.append(
            Finding("spread", WARNING, text, "stop other work on the device, fix the clock, use fewer threads")
        )
    medians = [statistics.summary(one.samples_ns)["p50"] for one in rounds if len(one.samples_ns) >= _STEADY_SAMPLES]
    if len(medians) > 1 and max(medians) > _ROUNDS_APART * min(medians):
        text = "the rounds disagree: medians from %.3f to %.3f ms" % (min(medians) / 1e6, max(medians) / 1e6)
        found.append(Finding("rounds-disagree", WARNING, text, "something else ran, or the clock moved: measure again"))
    return found


def _board(before: ProbeReading, after: ProbeReading) -> List[Finding]:
    found: List[Finding] = []
    if (
        before.frequency_mhz
        and after.frequency_mhz
        and max(after.frequency_mhz) < _CLOCK_FALL * max(before.frequency_mhz)
    ):
        text = "the clock fell from %.0f to %.0f MHz during the run" % (
            max(before.frequency_mhz),
            max(after.frequency_mhz),
        )
        found.append(Finding("clock-fell", WARNING, text, "cool the board, or measure after it has settled"))
    if before.throttled or after.throttled:
        found.append(Finding("throttled", WARNING, "the board throttles", "cool it, or use a stronger power supply"))
    if before.governor in ("powersave", "ondemand", "schedutil", "conservative"):
        text = "the CPU governor is %r: the clock follows the load" % before.governor
        found.append(Finding("governor", INFO, text, "for steady numbers: cpupower frequency-set -g performance"))
    return found


def busy(load: Optional[float], cores: int) -> List[Finding]:
    """Whether other work runs on the device before a measurement starts."""
    if load is None or load <= _BUSY * cores:
        return []
    text = "the device is busy: load %.1f on %d cores before the run" % (load, cores)
    return [Finding("busy", WARNING, text, "stop the other work, or measure again later")]


def once(found: List[Finding]) -> List[Finding]:
    """The findings, each code once."""
    kept: List[Finding] = []
    for finding in found:
        if finding.code not in {one.code for one in kept}:
            kept.append(finding)
    return kept
