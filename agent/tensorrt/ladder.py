"""Before a model can be loaded: the engine from the cache, or built in child processes down a ladder of retries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

from agent.contract.errors import DeviceError, EdgepackError
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.manifest import Manifest
from agent.tensorrt import cache
from agent.workshop import Prepared, Workshop

BUILD_SECONDS = 1800.0
OPEN_SECONDS = 300.0
_MEMORY_SHARE = 0.5  # of what is available: the builder needs more than its workspace, and Jetson shares memory
_LEAST_MEMORY = 384 << 20
_LEAST_WORKSPACE = 32 << 20
# Worth another try with less: the builder gave up, or the kernel or the runtime ended it. Not: a model that is refused.
_RETRY = ("build-failed", "out-of-memory", "child-sigkill", "child-sigsegv", "child-sigabrt", "child-failed")
_NO_LEVELS = (8, 6)  # builder_optimization_level is new in 8.6


def prepare(manifest: Manifest, folder: str, options: Dict[str, Any], shop: Workshop) -> Prepared:
    """The options with the engine's path and sha256. Raises DeviceError when the device cannot build it."""
    onnx = Path(folder).joinpath(*manifest.model.split("/"))
    recipe = dict(manifest.session_options)
    shop.progress("looking at the GPU")
    environment = {**shop.call("environment", {}, OPEN_SECONDS), "board": shop.board}
    place, name = cache.folder(shop.root, onnx), cache.key(recipe, environment)
    findings: List[Finding] = []
    engine = cache.find(place, name)
    if engine is not None:
        stale = _stale(engine, shop)
        if stale is not None:
            cache.drop(place, name)
            text = "the cached engine did not load and was built again: %s" % stale.what
            findings.append(Finding("engine-rebuilt", WARNING, text, "nothing, unless it happens again"))
            engine = None
    if engine is None:
        engine = _build(onnx, recipe, environment, shop, (place, name))
        findings += _told(engine)
    loaded = {"engine": engine["path"], "sha256": engine["sha256"], "backend": environment["backend"]}
    return Prepared({**options, **loaded}, findings)


def _stale(engine: Dict[str, Any], shop: Workshop) -> Optional[EdgepackError]:
    """Why a cached engine does not deserialise here, or None."""
    try:
        shop.call("open_engine", {"path": engine["path"], "sha256": engine["sha256"]}, OPEN_SECONDS)
    except DeviceError as error:
        if error.code == "engine-stale" or error.code.startswith("child-"):
            return error
        raise
    return None


def _build(onnx: Path, recipe: Dict[str, Any], environment: Dict[str, Any], shop: Workshop, to: Any) -> Dict[str, Any]:
    steps = rungs(environment["tensorrt"], workspace(recipe, shop.memory_available))
    failed: List[str] = []
    for index, rung in enumerate(steps):
        shop.progress("building the engine (%s)" % _show(rung))
        arguments = {
            "onnx": str(onnx),
            "recipe": recipe,
            "rung": rung,
            "place": str(to[0]),
            "name": to[1],
            "backend": environment["backend"],
            "facts": {"environment": environment, "rung": rung, "failed": failed},
        }
        try:
            built: Dict[str, Any] = shop.call("build_engine", arguments, BUILD_SECONDS)
        except DeviceError as error:
            if error.code == "child-timeout":
                error.what = "the engine was not built within %.0f minutes" % (BUILD_SECONDS / 60)
                error.fix = "use a smaller model, or raise the power mode (nvpmodel) while it is built"
                raise
            if error.code not in _RETRY:
                raise
            failed.append("%s: %s" % (_show(rung), error.what))
            if index + 1 == len(steps):
                raise DeviceError(
                    "no engine could be built: %s" % error.what,
                    where="tried %s" % "; ".join(failed),
                    expected=error.expected,
                    fix=error.fix or "stop other programs, or use --recipe fp16, a smaller batch or a smaller model",
                    code=error.code,
                ) from error
        else:
            return built
    raise AssertionError("unreachable: the ladder has rungs")


def workspace(recipe: Dict[str, Any], available: Optional[int]) -> int:
    """Bytes for the builder: the recipe's wish, but at most a share of what is free. Raises DeviceError when too little is."""
    wish = int(recipe.get("workspace_bytes") or 1 << 30)
    if available is None:
        return wish
    if available < _LEAST_MEMORY:
        raise DeviceError(
            "too little memory to build an engine: %.0f MB are available" % (available / 1e6),
            expected="%.0f MB at least" % (_LEAST_MEMORY / 1e6),
            fix="stop other programs and the desktop (sudo systemctl isolate multi-user.target), or add swap",
            code="low-memory",
        )
    return max(_LEAST_WORKSPACE, min(wish, int(available * _MEMORY_SHARE)))


def rungs(version: str, space: int) -> List[Dict[str, Any]]:
    """What to try, in order: optimisation levels 3, 2, 1, then half the workspace; before 8.6 only less workspace."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < _NO_LEVELS:
        return [{"level": None, "workspace_bytes": space >> shift} for shift in (0, 1, 2)]
    return [{"level": level, "workspace_bytes": space} for level in (3, 2, 1)] + [
        {"level": 1, "workspace_bytes": space >> 1}
    ]


def _show(rung: Dict[str, Any]) -> str:
    level = "" if rung["level"] is None else "level %d, " % rung["level"]
    return "%sworkspace %d MB" % (level, rung["workspace_bytes"] >> 20)


def _told(engine: Dict[str, Any]) -> List[Finding]:
    text = "the engine was built on the device in %.1f s with %s" % (engine["seconds"], _show(engine["rung"]))
    findings = [Finding("engine-built", INFO, text, "")]
    if engine["failed"]:
        text = "the engine is not the fastest: it could only be built with less (%s)" % "; ".join(engine["failed"])
        findings.append(Finding("engine-ladder", WARNING, text, "free memory on the device and measure again"))
    return findings
