"""What the child process does in which NVIDIA's parser and builder run: with the very code that the agent builds with."""

from __future__ import annotations

from typing import Any

from agent.contract.errors import EdgepackError
from agent.tensorrt import api


def run(task: dict[str, Any]) -> dict[str, Any]:
    """`stage` is how far it came: parse, build or built; `errors` and the engine's `lines` come from the log."""
    import tensorrt_rtx

    errors: list[str] = []
    lines: list[str] = []

    def keep(severity: int, text: str) -> None:
        if severity <= 1:
            errors.append(text)
        if "LayerType:" in text:
            lines.extend(line for line in text.splitlines() if line.startswith("Name: "))

    answer: dict[str, Any] = {"version": str(tensorrt_rtx.__version__), "errors": errors, "lines": lines, "faults": []}
    logger = api.make_logger(tensorrt_rtx, keep)
    request = api.BuildRequest(
        precision="", strong=True, profiles=task["profiles"], capability=task["capability"], workspace_bytes=0
    )
    try:
        built = api.build(tensorrt_rtx, task["model"], request, logger)
    except api.ParseError as error:
        return {**answer, "stage": "parse", "faults": error.faults}
    except EdgepackError as error:
        return {**answer, "stage": "build", "faults": [{"desc": error.what}]}
    return {**answer, "stage": "built", "seconds": built.seconds, "engine_bytes": len(built.plan)}
