"""The bundle's manifest: the one document whose sha256 is the bundle's digest."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Union

from agent.contract import codec
from agent.contract.finding import Finding

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output. A dimension is a number, or a name where it is free. `layout` is nchw, nhwc or empty (unknown)."""

    name: str
    dtype: str
    shape: List[Union[int, str]]
    layout: str = ""


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """A file of the bundle."""

    sha256: str
    size: int


@dataclasses.dataclass(frozen=True)
class RuntimeNeed:
    """The runtime that runs the bundle: version >= `min_version`, < `below_version` (empty: no bound)."""

    name: str
    min_version: str
    below_version: str = ""
    cpu_features: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class GoldenTensor:
    """`file` is a .npy whose first axis is the golden sample, the others the tensor's own shape."""

    name: str
    file: str


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """A float output passes a golden sample when no value is further off than `max_abs` (in its own unit); or when its cosine
    with the original is at least `min_cosine` and it is within sqrt(2 (1 - min_cosine)) of the original's length of it.
    Integers and booleans must be equal. Every sample must pass.
    """

    min_cosine: float
    max_abs: float


@dataclasses.dataclass(frozen=True)
class Golden:
    """Inputs, and what the *original* model made of them on the host, without the runtime's optimisations."""

    samples: int
    inputs: List[GoldenTensor]
    outputs: List[GoldenTensor]
    tolerance: Tolerance
    made_from: str  # calibration | example | random


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What turns a picture into the model's input: resize to `size` (height, width), scale to 0..1, (x - mean) / std."""

    size: List[int]
    mean: List[float]
    std: List[float]
    layout: str = "nchw"
    color: str = "rgb"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Which data the activation ranges come from. `kind`: npz, folder, images, function or random."""

    kind: str
    digest: str
    samples: int


@dataclasses.dataclass(frozen=True)
class Step:
    """One step that made the model: no times, no paths, so that the same inputs give the same bytes."""

    name: str
    tool: str
    options: Dict[str, Any]
    result: str  # sha256 of the file it made


@dataclasses.dataclass(frozen=True)
class Source:
    """The original. `size_bytes` counts the file with its external data; `digest` is of the same bytes."""

    format: str
    name: str
    digest: str
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything the device must know, and everything one must know to make the bundle again."""

    name: str
    target: str
    runtime: RuntimeNeed
    model: str
    files: Dict[str, FileEntry]
    inputs: List[TensorSpec]
    outputs: List[TensorSpec]
    recipe: Dict[str, Any]
    source: Source
    steps: List[Step]
    edgepack: str
    golden: Optional[Golden] = None
    calibration: Optional[Calibration] = None
    preprocessing: Optional[Preprocessing] = None
    session_options: Dict[str, Any] = dataclasses.field(default_factory=dict)
    facts: Dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: List[Finding] = dataclasses.field(default_factory=list)
    schema: str = "edgepack.manifest/1"

    def to_bytes(self) -> bytes:
        """The canonical bytes, as they stand in the bundle."""
        return codec.dumps(self).encode("utf-8")


def manifest_digest(raw: bytes) -> str:
    """The bundle's digest: "sha256:" and the hash of the manifest's bytes."""
    import hashlib  # it loads OpenSSL, 4 MB that a measuring process does not need

    return "sha256:" + hashlib.sha256(raw).hexdigest()


def parse_manifest(raw: bytes, source: str = "") -> Manifest:
    """The manifest in `raw`. Raises ContractError."""
    return codec.loads(Manifest, raw, source=source or MANIFEST_NAME)
