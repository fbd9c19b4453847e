"""What the device is and lacks, with the exact fix for each."""

from __future__ import annotations

import glob
import json
import os
import select
import subprocess
import sys
from importlib import import_module
from typing import Any, Dict, List

from agent import clocks, features, remedy, trust
from agent.contract import signatures
from agent.contract.errors import DeviceError
from agent.contract.facts import DeviceFacts, DoctorReport
from agent.contract.finding import ERROR, INFO, WARNING, Finding
from agent.contract.job import Job
from agent.measure import doubts, sampler, stability
from agent.probes import cpu, reading
from agent.store import Store
from agent.wire import Wire

_FIRST = "onnxruntime"  # what most bundles for boards run on
_LOW_DISK = 200 << 20
_LOW_MEMORY = 128 << 20
_CLOCK_OFF = 86400.0
_LOOK_IN = ("/usr/bin", "/usr/local/bin", "~/.venv/bin", "~/venv/bin", "~/*/bin", "/opt/*/bin", "~/.virtualenvs/*/bin")
_MOST = 12
_LOOK_SECONDS = 0.6  # for how busy the cores are
# Old glibc: no current wheel of onnxruntime (2.28) or ai-edge-litert (2.27) loads.
_GLIBC = (2, 28)
_ASK = (
    "import json,sys\n"
    "from importlib import util\n"
    "names=[n for n in sys.argv[1:] if util.find_spec(n) is not None]\n"
    "print(json.dumps({'version': '%d.%d.%d' % sys.version_info[:3], 'has': ' '.join(names)}))\n"
)


def run(job: Job, wire: Wire) -> DoctorReport:
    """`arguments`: host_unix, the host's clock."""
    store = Store(job.root)
    wire.progress("reading the device")
    facts = reading.facts(str(store.root))
    wire.progress("looking for interpreters")
    interpreters = find_interpreters()
    findings = diagnose(facts, float(job.arguments.get("host_unix", facts.clock_unix)), interpreters)
    findings += _before_a_run(facts.cpu_cores)
    if clocks.left_locked(str(store.root)):
        text = "a run that was killed left the clocks raised"
        findings.append(
            Finding("clocks-left", WARNING, text, "edgepack bench --lock-clocks gives them back, or reboot")
        )
    findings += _signatures(store)
    kept = store.kept_results()
    if kept:
        text = "%d results were never fetched" % len(kept)
        findings.append(Finding("kept-results", INFO, text, "edgepack results collect DEVICE"))
    return DoctorReport(facts=facts, findings=findings, interpreters=interpreters)


def _before_a_run(cores: int) -> List[Finding]:
    """What would trouble a measurement now: other work, heat, throttling, a clock that moves or is coarse."""
    work = cpu.Work()
    # Not time.sleep: it asks for an absolute time, which libfaketime refuses from Python 3.11 on.
    select.select([], [], [], _LOOK_SECONDS)
    others, _ = work.of_others()
    board = reading.take()
    found = stability.busy(board.load_1min, cores) + stability.before(board)
    return found + doubts.beforehand(board, others, sampler.tick())


def _signatures(store: Store) -> List[Finding]:
    """A device that cannot verify signatures is named; one that runs signed bundles only then runs nothing."""
    try:
        signatures.find_ssh_keygen()
    except DeviceError as error:
        strict = trust.load(store.root).signed_only
        text = "signatures cannot be verified: %s" % error.what
        return [Finding("no-ssh-keygen", ERROR if strict else INFO, text, error.fix)]
    return []


def diagnose(facts: DeviceFacts, host_unix: float, interpreters: List[Dict[str, str]]) -> List[Finding]:
    """What stands in the way of running bundles here."""
    found: List[Finding] = []
    present = [runtime for runtime in facts.runtimes if runtime.version]
    if facts.numpy is None or not present:
        missing = ["numpy"] * (facts.numpy is None) + ["a runtime"] * (not present)
        code = "no-numpy" if facts.numpy is None else "no-runtime"
        packages = ["numpy", *(() if present else import_module("agent.runners." + _FIRST).PACKAGES)]
        text = "%s not installed for %s" % (
            " and ".join(missing) + (" are" if len(missing) > 1 else " is"),
            facts.python_path,
        )
        found.append(Finding(code, ERROR, text, remedy.install(packages) + _elsewhere(interpreters)))
    libc = facts.libc.rpartition("-")
    if libc[0] == "glibc" and features.release(libc[2]) < _GLIBC:
        text = "glibc %s is older than 2.28: current wheels do not load" % libc[2]
        found.append(
            Finding("old-glibc", WARNING, text, "use onnxruntime 1.16.3 or ai-edge-litert 1.4.0, or a newer system")
        )
    if facts.disk_free is not None and facts.disk_free < _LOW_DISK:
        text = "only %.0f MB are free at %s" % (facts.disk_free / 1e6, facts.root)
        found.append(Finding("low-disk", WARNING, text, "free space, or name another folder with --root"))
    if facts.memory_available is not None and facts.memory_available < _LOW_MEMORY:
        text = "only %.0f MB of memory are available" % (facts.memory_available / 1e6)
        found.append(Finding("low-memory", WARNING, text, "stop other programs, or add swap"))
    if abs(facts.clock_unix - host_unix) > _CLOCK_OFF:
        days = (facts.clock_unix - host_unix) / 86400
        text = "the device's clock is %.0f days %s" % (abs(days), "ahead" if days > 0 else "behind")
        found.append(
            Finding("clock", WARNING, text, "set it (timedatectl set-ntp true); measurements do not depend on it")
        )
    return found


def find_interpreters() -> List[Dict[str, str]]:
    """Pythons on the usual paths, with their version and which of numpy and the runtimes each holds."""
    seen: Dict[str, Dict[str, str]] = {}
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_LOOK_IN]
    paths = [sys.executable]
    for folder in folders:
        paths += sorted(glob.glob(os.path.join(os.path.expanduser(folder), "python3*")))
    names = ["numpy", *(getattr(import_module("agent.runners." + n), "MODULE", n) for n in reading.runner_names())]
    for path in paths:
        if path.endswith("-config") or len(seen) >= _MOST or not os.access(path, os.X_OK):
            continue
        # A virtual environment's python is a link to the system's, but not the same interpreter: keyed by its own folder.
        key = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(os.path.realpath(path)))
        if key not in seen:
            seen[key] = {"path": path, **_ask(path, names)}
    # python3 and python3.11 of one folder may be copies of one file.
    alike = {(os.path.dirname(key), one["version"]): one for key, one in reversed(list(seen.items()))}
    return list(reversed(list(alike.values())))


def _ask(path: str, names: List[str]) -> Dict[str, str]:
    try:
        done = subprocess.run([path, "-I", "-c", _ASK, *names], capture_output=True, timeout=20, check=True)
        told: Dict[str, Any] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        # Not str(error): that is the question, not the answer.
        said = error.stderr.decode("utf-8", "replace").strip()[-200:]
        return {
            "version": "",
            "has": "",
            "error": ("it ended with status %d: %s" % (error.returncode, said)).rstrip(": "),
        }
    except subprocess.TimeoutExpired:
        return {"version": "", "has": "", "error": "it did not answer"}
    except (OSError, ValueError) as error:
        return {"version": "", "has": "", "error": str(error)[:200]}
    return {"version": str(told["version"]), "has": str(told["has"])}


def _elsewhere(interpreters: List[Dict[str, str]]) -> str:
    better = [one["path"] for one in interpreters if len(one["has"].split()) > 1]
    if not better:
        return ""
    return "; or use one that has it: edgepack devices add NAME ADDRESS --python %s" % better[0]
