"""`edgepack.toml` beside a model: what is built for which device, so that `edgepack build --target NAME` is enough."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Optional

from agent.contract import codec
from agent.contract.errors import ContractError, UsageError

NAME = "edgepack.toml"


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """What differs for one target. Paths are relative to the project file."""

    recipe: Optional[str] = None  # noqa: UP045 - the codec reads these types, and knows Optional
    runtime: Optional[str] = None  # noqa: UP045
    calibration: Optional[str] = None  # noqa: UP045
    shape: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Project:
    """The whole file. `target` is the one built when none is named."""

    model: str
    target: Optional[str] = None  # noqa: UP045
    recipe: Optional[str] = None  # noqa: UP045
    calibration: Optional[str] = None  # noqa: UP045
    eval: Optional[str] = None  # noqa: UP045
    metric: Optional[str] = None  # noqa: UP045
    shape: tuple[str, ...] = ()
    targets: dict[str, TargetSettings] = dataclasses.field(default_factory=dict)
    schema: str = "edgepack.project/1"


def load_project(path: Path) -> Project:
    """The project file. Raises ContractError or UsageError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the project file cannot be read: {error}", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"not TOML: {error}", where=str(path)) from error
    data.setdefault("schema", Project.schema)
    return codec.decode(Project, data, source=str(path))


def fill(options: dict[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """The command line's options, with what it left out taken from the project file. Raises UsageError."""
    base = folder or Path()
    path = base / NAME
    if options.get("model") is not None or not path.is_file():
        for key, fix in (
            ("model", "name a model, or write edgepack.toml: edgepack init MODEL"),
            ("target", "--target PROFILE"),
        ):
            if not options.get(key):
                raise UsageError(f"no {key} was given", fix=f"{fix}; edgepack profiles list", code=f"no-{key}")
        return {**options, "shapes": tuple(options["shapes"])}
    project = load_project(path)
    target = options.get("target") or project.target
    if not target:
        known = ", ".join(project.targets) or "none"
        raise UsageError(
            "no target was given", where=str(path), expected=f"--target NAME (named there: {known})", code="no-target"
        )
    own = project.targets.get(target, TargetSettings())
    calibration = options["calibration"] or _inside(base, own.calibration or project.calibration)
    return {
        **options,
        "model": _inside(base, project.model),
        "target": target,
        "runtime": options["runtime"] or own.runtime,
        "recipe": options["recipe"] or own.recipe or project.recipe,
        "calibration": calibration,
        "shapes": tuple(options["shapes"]) or own.shape or project.shape,
        "eval": options.get("eval") or _inside(base, project.eval),
        "metric": options.get("metric")
        or (_inside(base, project.metric) if options.get("eval") or project.eval else None),
    }


def _inside(base: Path, text: str | None) -> str | None:
    if text is None or text == "random" or Path(text).is_absolute():
        return text
    place = text.rpartition(":")[0] or text
    return str(base / text) if "/" in text or (base / place).exists() else text


def starter(model: str, inputs: list[tuple[str, str]], target: str) -> str:
    """The text of a new project file. `inputs` are names and shapes of inputs with free dimensions."""
    lines = [
        "# What `edgepack build` makes of this model. `edgepack profiles list` shows the targets.",
        f"model = {_quoted(model)}",
        f"target = {_quoted(target)}",
        "",
        "# Samples for INT8: arrays by input name, first axis = samples; or a folder, or file.py:function.",
        '# calibration = "calibration.npz"',
        "# Labelled samples, and how they are scored.",
        '# eval = "eval.npz"',
        '# metric = "top1"',
    ]
    for name, shape in inputs:
        lines += [
            "# This input has free dimensions; runtimes that want fixed ones need sizes.",
            f"# shape = [{_quoted(f'{name}={shape}')}]",
        ]
    lines += ["", "# Settings of one target override those above.", f"# [targets.{target}]", '# recipe = "int8"', ""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
