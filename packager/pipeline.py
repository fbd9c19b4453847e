"""A model becomes a bundle."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from agent.contract import codec
from agent.contract.errors import UsageError
from agent.contract.finding import Finding
from agent.contract.manifest import Manifest, Preprocessing, Source, Step, TensorSpec
from packager import registry
from packager.bundle.golden import integer_bounds, make_golden, sized
from packager.bundle.write import check_writable, golden_files, write_bundle
from packager.calibration import RANDOM, CalibrationData, load_calibration
from packager.host_check import conversion_check, host_check
from packager.plan import Plan, choose_runtime, make_plan, warm_up
from packager.profile import Profile, load_profile
from packager.protocols import FitsGolden, ImportsAhead, Lowering
from packager.recipe import load_recipe
from packager.shapes import Shape, apply_shapes, check_ranges, check_shapes, parse_shapes, split_ranges
from packager.version import __version__

if TYPE_CHECKING:
    from packager.accuracy.gate import Gate
    from packager.artifact import Artifact
    from packager.bundle.golden import GoldenVectors
    from packager.compress.steps import Applied
    from packager.protocols import Source as SourceFormat
    from packager.protocols import Terms

_RANK = 4
_ENDINGS = (".onnx", ".tflite", ".keras", ".h5", ".pt2", ".py")
_CHANNELS = (1, 3, 4)


@dataclasses.dataclass(frozen=True)
class Request:
    """What to build. `model` is a path or `file.py:factory`; `target` a profile's name or the path of its TOML."""

    model: str
    target: str
    runtime: str | None = None
    recipe: str | None = None
    calibration: str | None = None
    shapes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    output_names: tuple[str, ...] = ()
    output: Path | None = None
    check: bool = True
    target_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    layout: str = ""  # of image inputs and outputs: nhwc, nchw or keep; empty is the runtime's own
    io: str = ""  # of a static INT8 model's inputs and outputs: float or int8
    eval: str | None = None  # labelled samples, an .npz
    test: str | None = None  # more of them, which no search sees
    metric: str | None = None
    max_drop: float | None = None  # points
    max_drop_relative: float | None = None  # percent of the original's score
    allow_drop: bool = False
    search_minutes: float | None = None


@dataclasses.dataclass(frozen=True)
class Built:
    """The bundle that was written."""

    bundle: Path
    digest: str
    manifest: Manifest
    size_bytes: int
    reports: tuple[dict[str, Any], ...] = ()  # what the recipe's steps bought, measured while building

    def document(self) -> dict[str, Any]:
        """What `edgepack build --json` prints."""
        manifest = self.manifest
        return {
            "bundle": str(self.bundle),
            "digest": self.digest,
            "target": manifest.target,
            "runtime": manifest.runtime.name,
            "recipe": manifest.recipe["name"],
            "size_bytes": self.size_bytes,
            "model_file": manifest.model,
            "model_bytes": manifest.files[manifest.model].size,
            "source_bytes": manifest.source.size_bytes,
            "steps": codec.encode(manifest.steps),
            "findings": codec.encode(manifest.findings),
            **{key: manifest.facts[key] for key in ("accuracy", "int8_share") if key in manifest.facts},
            "reports": list(self.reports),
        }


@runtime_checkable
class CapsOpset(Protocol):
    """A target that eats ONNX says up to which opset, so that an exporter need not be undone afterwards."""

    def most_opset(self, profile: Profile) -> int:
        """The highest opset that this profile's runtime loads."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A request whose names have been looked up and whose plan is made; nothing has been written."""

    request: Request
    source: SourceFormat
    artifact: Artifact
    job: Lowering
    runtime: str
    plan: Plan
    gate: Gate | None = None

    def document(self) -> dict[str, Any]:
        """What `edgepack build --dry-run --json` prints."""
        return {
            "model": self.request.model,
            "format": self.artifact.format,
            "target": self.job.profile.name,
            "runtime": self.runtime,
            "recipe": self.job.recipe.name,
            "steps": [{"name": name, "options": options} for name, options in self.plan.steps],
            "output": str(output_path(self.request, self.job.profile)),
        }


def build(model: str, target: str, *, progress: Callable[[str], None] = lambda _: None, **options: Any) -> Built:
    """Builds a bundle for a device and writes it. `options` are the fields of Request.

    Raises UsageError (exit code 2), ConvertError (3); nothing half-written is left.
    """
    paths = {key: str(options[key]) for key in ("recipe", "calibration") if options.get(key) is not None}
    return run(Request(model=str(model), target=str(target), **{**options, **paths}), progress)


def run(request: Request, progress: Callable[[str], None] = lambda _: None) -> Built:
    """As `build`, for a Request."""
    with tempfile.TemporaryDirectory(prefix="edgepack-build-") as folder:
        prepared = prepare(request, Path(folder), progress, warm=True)
        return _execute(prepared)


def prepare(
    request: Request, workdir: Path, progress: Callable[[str], None] = lambda _: None, *, warm: bool = False
) -> Prepared:
    """Looks everything up, opens the source, loads the calibration data and makes the plan. `warm`: it will be run."""
    profile = load_profile(request.target)
    recipe = load_recipe(request.recipe or profile.default.recipe)
    recipe = dataclasses.replace(recipe, io=request.io or recipe.io)
    runtime = choose_runtime(profile, request.runtime)
    check_writable(output_path(request, profile))
    plain, ranges = split_ranges(request.shapes)
    shapes = parse_shapes(plain)
    source = find_source(request.model)
    if warm:
        warm_up(source.format, runtime)
    from packager.accuracy.gate import Wish, open_gate  # many modules: while the converter starts

    progress("reading the model")
    usual = {**shapes, **{name: one.usual for name, one in ranges.items()}}
    artifact = source.open(request.model, {"shapes": usual, "output_names": request.output_names})
    check_shapes(shapes, artifact.inputs, may_free=artifact.format == "torch")
    check_ranges(ranges, artifact.inputs, may_free=artifact.format == "torch")
    inputs = tuple(_with_layout(spec) for spec in artifact.inputs)
    artifact = dataclasses.replace(artifact, inputs=inputs)
    job = Lowering(recipe, profile, workdir, shapes=shapes, ranges=ranges, progress=progress)
    job = dataclasses.replace(job, name=model_name(request.model), preprocessing=request.preprocessing)
    job = dataclasses.replace(job, options=request.target_options)
    # The plan first: it is what tells that INT8 lacks its data, before any is loaded.
    plan = make_plan(artifact, job, runtime, calibrated=request.calibration is not None)
    job = dataclasses.replace(job, calibration=_calibration(request, artifact, shapes, usual))
    wish = Wish(**{field.name: getattr(request, field.name) for field in dataclasses.fields(Wish)})
    fixed = dataclasses.replace(artifact, inputs=tuple(apply_shapes(usual, artifact.inputs)))
    return Prepared(request, source, artifact, job, runtime, plan, open_gate(wish, fixed))


def find_source(model: str) -> SourceFormat:
    """The format that accepts this model. Raises UsageError that lists what is accepted."""
    for source in registry.sources():
        if source.accepts(model):
            return source
    path = Path(model)
    what = f"edgepack does not read {path.suffix or 'such'} models" if path.exists() else "there is no such model"
    raise UsageError(
        what,
        where=model,
        expected="model.onnx, .tflite, .keras, .h5, .pt2, a TorchScript .pt, file.py:factory or package.module:factory",
        code="no-model" if not path.exists() else "unknown-format",
    )


def output_path(request: Request, profile: Profile) -> Path:
    """Where the bundle goes: -o, else NAME-PROFILE.edgepack in the current folder."""
    return Path(request.output) if request.output else Path(f"{model_name(request.model)}-{profile.name}.edgepack")


def model_name(model: str) -> str:
    """The model's name: its file's stem, or the factory's file."""
    place = model.rpartition(":")[0] if registry.source("torch").accepts(model) else model
    stem = Path(place).stem if "/" in place or place.endswith(_ENDINGS) else Path(place).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem.removesuffix(".pt").strip("."))[:100] or "model"


def _calibration(
    request: Request, artifact: Artifact, shapes: Mapping[str, Shape], usual: Mapping[str, Shape]
) -> CalibrationData | None:
    if request.calibration is None:
        return None
    specs = artifact.inputs
    if request.calibration == RANDOM:
        specs = tuple(sized(artifact, usual))
    elif shapes:
        specs = tuple(apply_shapes(shapes, specs))
    return load_calibration(request.calibration, specs, request.preprocessing, integer_bounds(artifact))


def _execute(prepared: Prepared) -> Built:
    from packager.accuracy.gate import lower

    applied, job, target = _changed(prepared), prepared.job, prepared.plan.target
    artifact = applied.artifact
    job.progress("running the original on golden inputs")
    golden = make_golden(prepared.source, artifact, job.calibration, _golden_shapes(job))
    lowered = artifact
    for edge in prepared.plan.conversions:
        job.progress(f"converting {edge.source} to {edge.result}")
        lowered = edge.convert(lowered, _convert_options(prepared), job.workdir)
    if prepared.plan.conversions:
        _check_conversion(prepared, artifact, lowered, golden)
    reports = applied.reports
    if any(step["do"] == "fuse" for step in job.recipe.steps):
        fused = _fused(prepared, lowered, golden)
        lowered, reports = fused.artifact, (*reports, *fused.reports)
        job = dataclasses.replace(job, shapes={})  # they stand in the graph now
    job.progress(f"lowering to {target.title}")
    changed = artifact.digest != prepared.artifact.digest
    passed = lower(target, artifact, lowered, job, prepared.gate, prepared.artifact if changed else None)
    lowered, job, prepared = passed.artifact, passed.job, dataclasses.replace(prepared, job=passed.job)
    if isinstance(target, FitsGolden):
        golden = target.fit_golden(artifact, lowered, golden)
    terms = target.terms(lowered, job)
    terms = dataclasses.replace(terms, facts={**terms.facts, **passed.facts})
    findings = [*lowered.findings, *passed.findings]
    if prepared.request.check:
        job.progress("comparing with the original")
        quantised = job.recipe.precision if not prepared.artifact.quantized else "int8"
        accepted = prepared.gate is not None or prepared.request.allow_drop
        checked = host_check(target.run(lowered, golden.feeds()), golden, terms, quantised, accepted)
        terms, findings = checked.terms, [*findings, *checked.findings]
    return dataclasses.replace(_write(prepared, lowered, golden, terms, findings), reports=reports)


def _check_conversion(prepared: Prepared, artifact: Artifact, converted: Artifact, golden: GoldenVectors) -> None:
    """A converter that computes something else is told before anything is searched for in what it made. Floats are compared
    once, when they are lowered.
    """
    job, target = prepared.job, prepared.plan.target
    if not prepared.request.check or converted.quantized or job.recipe.precision in ("fp32", "fp16"):
        return
    job.progress("comparing the conversion with the original")
    fitted = target.fit_golden(artifact, converted, golden) if isinstance(target, FitsGolden) else golden
    conversion_check(registry.source(converted.format).run(converted, fitted.feeds()), fitted)


def _changed(prepared: Prepared) -> Applied:
    """The source after the recipe's steps on modules: from there on that is the original."""
    from packager.accuracy.module_score import module_scorer
    from packager.compress.steps import Applied, apply_module_steps

    source, artifact, job = prepared.source, prepared.artifact, prepared.job
    changes = any(step["do"] in ("prune", "distill") for step in job.recipe.steps)
    applied = apply_module_steps(source, artifact, job, module_scorer) if changes else Applied(artifact)
    return dataclasses.replace(applied, artifact=_trained(prepared, applied.artifact))


def _fused(prepared: Prepared, lowered: Artifact, golden: GoldenVectors) -> Applied:
    from packager.compress.steps import apply_fusion
    from packager.onnx_versions import limits

    profile, target = prepared.job.profile, prepared.plan.target
    known = limits(profile.runtime(prepared.runtime).version)
    most = target.most_opset(profile) if isinstance(target, CapsOpset) else known.opset
    return apply_fusion(lowered, prepared.job, golden, most, known.ir_version)


def _trained(prepared: Prepared, artifact: Artifact) -> Artifact:
    """The source, or what the recipe's training made of it: from there on that is the original."""
    job = prepared.job
    if not job.recipe.qat:
        return artifact
    from packager.compress.qat import train_artifact

    job.progress("training with fake quantisation")
    # Seven bits for activations where products saturate (x86 without VNNI), eight elsewhere.
    engine = "x86" if job.profile.cpu.arch == "x86_64" else "qnnpack"
    entry = train_artifact(artifact, job.recipe, engine=engine, workdir=job.workdir)
    names = tuple(spec.name for spec in artifact.outputs)
    trained = prepared.source.open(entry, {"shapes": job.shapes, "output_names": names})
    function = job.recipe.qat.rpartition(":")[2]
    step = Step("train_quantised", "torch.ao", {"engine": engine, "function": function}, trained.digest)
    return dataclasses.replace(trained, steps=(*artifact.steps, step), findings=artifact.findings)


def _golden_shapes(job: Lowering) -> dict[str, Shape]:
    return {**job.shapes, **{name: one.usual for name, one in job.ranges.items()}}


def _convert_options(prepared: Prepared) -> dict[str, Any]:
    shapes = {**prepared.job.shapes, **{name: one.named(name) for name, one in prepared.job.ranges.items()}}
    free = {
        name: {axis: size for axis, size in enumerate(shape) if isinstance(size, str)} for name, shape in shapes.items()
    }
    options: dict[str, Any] = {
        "shapes": shapes,
        "free_dims": {name: axes for name, axes in free.items() if axes},
        "layout": prepared.request.layout,
        "progress": prepared.job.progress,
    }
    target = prepared.plan.target
    if isinstance(target, ImportsAhead):
        options["meanwhile"] = lambda: target.import_ahead(prepared.job.recipe)
    steps = prepared.job.recipe.steps
    chosen = next((step["exporter"] for step in steps if step["do"] == "convert" and step["exporter"]), "")
    # Transformers that torch.export wrote are not recognised by the fusion; those of the older exporter are.
    options["exporter"] = chosen or ("torchscript" if any(step["do"] == "fuse" for step in steps) else "")
    if isinstance(target, CapsOpset):
        options["max_opset"] = target.most_opset(prepared.job.profile)
    return options


def _write(
    prepared: Prepared, lowered: Artifact, golden: GoldenVectors, terms: Terms, findings: Iterable[Finding]
) -> Built:
    request, job, source = prepared.request, prepared.job, prepared.artifact
    record, contents = golden_files(golden, terms.tolerance)
    model_file = f"model/model{lowered.path.suffix}"
    contents[model_file] = lowered.path
    contents |= {f"model/{path.name}": path for path in lowered.companions}
    contents |= terms.files
    calibration = job.calibration
    manifest = Manifest(
        name=model_name(request.model),
        target=job.profile.name,
        runtime=terms.need,
        model=model_file,
        files={},
        inputs=[_with_layout(spec) for spec in lowered.inputs],
        outputs=[_with_rank(spec, golden) for spec in lowered.outputs],
        recipe=job.recipe.document(),
        source=Source(
            format=source.format,
            name=_source_name(request.model),
            digest=source.digest,
            size_bytes=source.size_bytes if source.weights_bytes is None else source.weights_bytes,
        ),
        steps=list(lowered.steps),
        edgepack=__version__,
        golden=record,
        calibration=calibration.record() if calibration is not None and job.recipe.needs_calibration else None,
        preprocessing=request.preprocessing,
        session_options=terms.session_options,
        facts={"opset": lowered.opset, "quantized": lowered.quantized, **terms.facts},
        findings=list(findings),
    )
    job.progress("writing the bundle")
    target = output_path(request, job.profile)
    whole, digest = write_bundle(target, manifest, contents)
    return Built(bundle=target, digest=digest, manifest=whole, size_bytes=target.stat().st_size)


def _source_name(model: str) -> str:
    """No folders: the same model in another place gives the same bundle."""
    place, colon, factory = model.rpartition(":")
    return f"{Path(place).name}:{factory}" if colon and place else Path(model).name


def _with_layout(spec: TensorSpec) -> TensorSpec:
    if spec.layout or len(spec.shape) != _RANK or not spec.dtype.startswith(("float", "int8", "uint8")):
        return spec
    first, last = spec.shape[1] in _CHANNELS, spec.shape[3] in _CHANNELS
    if first == last:
        return spec
    return dataclasses.replace(spec, layout="nchw" if first else "nhwc")


def _with_rank(spec: TensorSpec, golden: GoldenVectors) -> TensorSpec:
    """An ONNX output may come without a shape: the golden run says how many dimensions it has."""
    rank = golden.outputs[spec.name].ndim - 1
    if len(spec.shape) == rank:
        return spec
    return dataclasses.replace(spec, shape=[f"{spec.name}_{axis}" for axis in range(rank)])
