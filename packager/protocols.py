"""The seams of the host: what a source, a converter, a target and a transport must offer. Nobody inherits from these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from agent.contract.manifest import Preprocessing, RuntimeNeed, Tolerance
    from packager.artifact import Artifact
    from packager.bundle.golden import GoldenVectors
    from packager.calibration import CalibrationData
    from packager.compress.onnx_layers import Layer
    from packager.profile import Profile
    from packager.recipe import Recipe
    from packager.shapes import Range

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


class Source(Protocol):
    """A format that a user's model may come in; one file in `packager/sources/`."""

    format: str
    extra: str  # the pip extra it needs, "" for none

    def accepts(self, model: str) -> bool:
        """Whether `model` (a path, or `file.py:factory`) looks like this format, judged without loading it."""

    def open(self, model: str, options: Mapping[str, Any]) -> Artifact:
        """The model as an artifact, inputs and outputs known. Raises UsageError or ConvertError."""

    def example(self, artifact: Artifact) -> dict[str, np.ndarray[Any, Any]] | None:
        """Inputs that the source itself brings (one sample), or None."""

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The original's own outputs for each of `batches`: the reference for everything that follows."""


class Converter(Protocol):
    """An edge of the format graph; one file in `packager/convert/`, named `<Result>From<Source>`."""

    source: str
    result: str
    extra: str

    def convert(self, artifact: Artifact, options: Mapping[str, Any], workdir: Path) -> Artifact:
        """The artifact in the result's format, written under `workdir`. Raises ConvertError."""


@runtime_checkable
class Warms(Protocol):
    """A converter whose tool takes seconds to start."""

    def warm(self) -> None:
        """Starts what `convert` would wait for and returns at once; does nothing where that is not installed."""


@runtime_checkable
class ImportsAhead(Protocol):
    """A target whose libraries take long to import: it may do so while a converter works in another process."""

    def import_ahead(self, recipe: Recipe) -> None:
        """Imports what `lower` will need for this recipe."""


@dataclasses.dataclass(frozen=True)
class Lowering:
    """What a target is given beside the artifact. `shapes` are the user's --shape by input name, `ranges` those
    given as min:opt:max (for targets with `ranges = True`); `progress` takes words. `options` are the target's own, as the
    user gave them (`bytecode`). `cache` is a folder for what may serve the next lowering of the same model too. `name` is
    the model's, `preprocessing` what makes its input out of a picture, where the user said so.
    """

    recipe: Recipe
    profile: Profile
    workdir: Path
    calibration: CalibrationData | None = None
    shapes: Mapping[str, tuple[int | str, ...]] = dataclasses.field(default_factory=dict)
    progress: Callable[[str], None] = lambda _: None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    cache: Path | None = None
    name: str = ""
    preprocessing: Preprocessing | None = None


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the bundle tells the device: the runtime it needs, what the runner must be told, how far outputs may be off.

    `facts` go into the manifest's; `files` (name in the bundle to bytes) are shipped beside the model. `refuse_far`: outputs
    beyond the tolerance are refused on the host, where a runtime's kernels are known to compute wrongly; elsewhere the cost of
    INT8 is the user's to weigh, and is told.
    """

    need: RuntimeNeed
    tolerance: Tolerance
    session_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    refuse_far: bool = False


class Target(Protocol):
    """A deployment runtime and its rules; one file in `targets/`.

    A target that lowers several formats by itself names them all in `formats` (optional; `format` is the first). `options`
    (optional) are the keys of `Lowering.options` that it knows.
    """

    name: str
    title: str
    format: str
    recipes: Sequence[str]
    extra: str

    def plan(self, artifact: Artifact, job: Lowering) -> list[tuple[str, dict[str, Any]]]:
        """The names and options of the steps that `lower` will take; pure, for --dry-run. Raises ConvertError."""

    def lower(self, artifact: Artifact, job: Lowering) -> Artifact:
        """The artifact as this runtime runs it on this profile, with findings. Raises ConvertError."""

    def terms(self, artifact: Artifact, job: Lowering) -> Terms:
        """What the lowered artifact asks of the device."""

    def run(self, artifact: Artifact, batches: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """The lowered model's outputs on the host, computed as exactly as the host can (no optimised kernels)."""


@runtime_checkable
class FitsGolden(Protocol):
    """A target whose lowered models take other inputs than the original (layout, quantised integers)."""

    def fit_golden(self, original: Artifact, lowered: Artifact, golden: GoldenVectors) -> GoldenVectors:
        """The golden vectors as the lowered model takes and gives them; outputs stay real numbers."""


@runtime_checkable
class Tunable(Protocol):
    """A target whose static INT8 can be searched for a recipe that keeps the accuracy."""

    def layers(self, artifact: Artifact, job: Lowering) -> list[Layer]:
        """The layers that multiply, of the artifact as `lower` takes it; names as a recipe's `exclude` takes them."""

    def levers(self, recipe: Recipe, profile: Profile) -> list[tuple[str, dict[str, Any]]]:
        """What may help, the cheapest first: words, and the changes to the recipe."""

    def int8_layers(self, lowered: Artifact, layers: Sequence[Layer]) -> set[str]:
        """Which of the layers are in INT8 in the lowered model."""


@dataclasses.dataclass(frozen=True)
class Draft:
    """A stand-in for a lowered model, in memory: `artifact` has its digest and steps (no file), `run` gives its outputs for
    each of the feeds, under the original's names.
    """

    artifact: Artifact
    run: Callable[[Iterator[Arrays]], Iterator[dict[str, np.ndarray[Any, Any]]]]


@runtime_checkable
class Drafts(Protocol):
    """A target that lowers slowly, and makes what computes with the same integers at once: a search measures noise on that."""

    def draft(self, artifact: Artifact, job: Lowering) -> Draft:
        """What `lower` would give, as far as its numbers go. Raises ConvertError where the recipe breaks the quantiser."""


class Completed(Protocol):
    """What a command on the device left."""

    status: int
    stdout: bytes
    stderr: bytes


class Transport(Protocol):
    """A way to run commands on a device and move files. All raise DeviceError or, where another try may help,
    TransientDeviceError; a lost link is always told apart from a command that failed.
    """

    name: str

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes | IO[bytes] = b"",
        deadline: float | None = None,
        on_line: Callable[[bytes], None] | None = None,
        idle: float | None = None,
        on_interrupt: bytes | None = None,
    ) -> Completed:
        """Runs `argv` (quoted here, never interpolated). `deadline` is for all of it, `idle` for the longest silence, in
        seconds. With `on_line`, each line of stdout goes there as it comes and `stdout` stays empty. With `on_interrupt`
        stdin is kept open until the command ends, and a KeyboardInterrupt sends these bytes before it goes on.
        """

    def put(
        self, source: Path, target: str, deadline: float | None = None, progress: Callable[[int], None] | None = None
    ) -> None:
        """Copies a file: to a temporary name, its sha256 checked on the device, fsync, rename."""

    def get(self, source: str, target: Path, deadline: float | None = None) -> None:
        """Copies a file from the device, to a temporary name first."""

    def close(self) -> None:
        """Ends the connection; never raises."""
