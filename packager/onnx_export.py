"""torch.onnx, tamed: the names of the house, one file, no stack traces in it, opset within what was asked."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, Finding
from agent.contract.manifest import Step
from packager import torch_models
from packager.artifact import Artifact, digest_files
from packager.onnx_model import clean, load_model, model_inputs, model_outputs, move_opset, opset, save_model, told

# torch 2.13: the dynamo exporter writes opset 18 at least, the TorchScript exporter 17 at most is well tested.
_DYNAMO_OPSETS = (18, 20)
_SCRIPT_OPSET = 17


def export(
    module: Any, examples: tuple[Any, ...], artifact: Artifact, options: Mapping[str, Any], workdir: Path
) -> Artifact:
    """The module as ONNX. Falls back to the TorchScript exporter when torch.export refuses, with a finding."""
    ceiling = options.get("max_opset", _DYNAMO_OPSETS[1])
    if options.get("exporter") == "torchscript":
        return export_script(module, examples, artifact, options, workdir)
    findings: list[Finding] = []
    free = options.get("free_dims", {})

    def by_export() -> Any:
        torch = torch_models.need_torch()
        dynamic = _dynamic_shapes(artifact, free) if free else None
        return torch.onnx.export(
            module,
            _doubled(examples, artifact, free),
            dynamo=True,
            verbose=False,
            opset_version=max(_DYNAMO_OPSETS[0], min(ceiling, _DYNAMO_OPSETS[1])),
            dynamic_shapes=dynamic,
            **_names(artifact),
        )

    try:
        model = _guarded(by_export)
        if opset(model) > ceiling:
            model = move_opset(model, ceiling)
    except ConvertError as refused:
        findings.append(
            Finding(
                "torchscript-exporter",
                INFO,
                f"torch.export did not serve ({refused.what[:300]}): exported through TorchScript",
                "compare parity; data-dependent control flow is fixed to the example inputs' path",
            )
        )
        return export_script(module, examples, artifact, options, workdir, tuple(findings), str(refused.what))
    return _finish(model, artifact, "torch.onnx (torch.export)", workdir, tuple(findings))


def export_program(program: Any, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
    """The exported program as ONNX."""
    ceiling = options.get("max_opset", _DYNAMO_OPSETS[1])

    def run() -> Any:
        torch = torch_models.need_torch()
        version = max(_DYNAMO_OPSETS[0], min(ceiling, _DYNAMO_OPSETS[1]))
        return torch.onnx.export(program, dynamo=True, verbose=False, opset_version=version, **_names(artifact))

    return _finish(_guarded(run), artifact, "torch.onnx (exported program)", workdir, ())


def export_script(
    module: Any,
    examples: tuple[Any, ...],
    artifact: Artifact,
    options: Mapping[str, Any],
    workdir: Path,
    findings: tuple[Finding, ...] = (),
    before: str = "",
) -> Artifact:
    """The module as ONNX through the TorchScript exporter."""
    target = workdir / "traced.onnx"
    free = options.get("free_dims", {})

    def run() -> Any:
        torch = torch_models.need_torch()
        torch.onnx.export(
            module,
            examples,
            str(target),
            dynamo=False,
            opset_version=min(options.get("max_opset", _SCRIPT_OPSET), _SCRIPT_OPSET),
            dynamic_axes={name: dict(axes) for name, axes in free.items()} or None,
            **_names(artifact),
        )
        return load_model(target)

    try:
        model = _guarded(run)
    except ConvertError as error:
        if before:
            error.where = f"{error.where}; and torch.export: {before[:600]}"
        raise
    return _finish(model, artifact, "torch.onnx (TorchScript)", workdir, findings)


def _names(artifact: Artifact) -> dict[str, list[str]]:
    return {
        "input_names": [spec.name for spec in artifact.inputs],
        "output_names": [spec.name for spec in artifact.outputs],
    }


def _dynamic_shapes(artifact: Artifact, free: Mapping[str, Mapping[int, str]]) -> tuple[Any, ...]:
    torch = torch_models.need_torch()
    dims: dict[str, Any] = {}
    return tuple(
        {axis: dims.setdefault(name, torch.export.Dim(name)) for axis, name in free.get(spec.name, {}).items()}
        for spec in artifact.inputs
    )


def _doubled(examples: tuple[Any, ...], artifact: Artifact, free: Mapping[str, Mapping[int, str]]) -> tuple[Any, ...]:
    """torch.export takes a size of 1 for a constant: free dimensions are traced with 2."""
    traced = []
    for spec, tensor in zip(artifact.inputs, examples, strict=True):
        wide = tensor
        for axis in free.get(spec.name, {}):
            if wide.shape[axis] == 1:
                wide = wide.repeat_interleave(2, dim=axis)
        traced.append(wide)
    return tuple(traced)


def _guarded(run: Callable[[], Any]) -> Any:
    try:
        with _quiet():
            made = run()
    except Exception as error:
        # The exporters raise what the traced code raises, which may be anything.
        raise ConvertError(
            f"the export to ONNX failed: {_told(error)}",
            expected="a module that torch can export",
            code="export-failed",
        ) from error
    return made.model_proto if hasattr(made, "model_proto") else made


def _told(error: BaseException) -> str:
    cause = error.__cause__ or error
    lines = [line for line in told(cause, 5000).splitlines() if line.strip()]
    return " ".join(lines[:3])[:500]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print to stdout and warn of their own deprecations; stdout is ours."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _finish(model: Any, artifact: Artifact, tool: str, workdir: Path, findings: tuple[Finding, ...]) -> Artifact:
    path = workdir / "exported.onnx"
    companions = save_model(clean(model), path)
    digest = digest_files([path, *companions])
    torch = torch_models.need_torch()
    step = Step("onnx_from_" + artifact.format, f"torch {torch.__version__.partition('+')[0]}", {"via": tool}, digest)
    return Artifact(
        format="onnx",
        path=path,
        digest=digest,
        inputs=model_inputs(model),
        outputs=model_outputs(model),
        steps=(*artifact.steps, step),
        findings=(*artifact.findings, *findings),
        companions=companions,
        opset=opset(model),
    )
