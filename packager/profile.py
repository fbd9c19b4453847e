"""A profile: a filled-in form about one kind of device, read from TOML, strictly."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Optional

from agent.contract import codec
from agent.contract.errors import ContractError, UsageError, nearest, unknown_name
from packager.units import parse_bytes, parse_hertz

KINDS = ("linux-board", "jetson", "android", "microcontroller", "desktop")
# The instruction set extensions that matter for inference. Those of Linux machines have the names that the agent's
# probe gives to the kernel's flags, so that what a bundle needs can be compared with what the device says.
_ARM = ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2")
_X86 = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "vnni", "amx-int8")
CPU_FEATURES = {
    "x86_64": _X86,
    "aarch64": _ARM,
    "armv7l": ("neon",),
    "thumb": ("dsp", "fpu", "fpu64", "helium"),  # helium: the M-profile vector extension (MVE)
    "xtensa": ("fpu", "pie"),  # pie: the ESP32-S3's processor instruction extensions, 128 bit wide
}
SCOPES = ("all", "compute")
INT8_TYPES = ("int8", "uint8")
_NAME = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")
_VERSION = re.compile(r"\d+(?:\.\d+)*(?:\.?(?:a|b|rc|dev|post)\d+)?")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Cores of one kind, where a chip has several."""

    model: str
    cores: int
    clock: str = ""


@dataclasses.dataclass(frozen=True)
class Cpu:
    """`model` names the fastest core, `clock` is its top frequency ("2.4 GHz"), `features` what *every* core has."""

    arch: str
    model: str
    cores: int
    features: tuple[str, ...] = ()
    clock: str = ""
    clusters: tuple[Cluster, ...] = ()


@dataclasses.dataclass(frozen=True)
class Memory:
    """`ram` and, where programs live in it, `flash`: text with a unit ("8 GiB")."""

    ram: str
    flash: str = ""

    @property
    def ram_bytes(self) -> int:
        """RAM in bytes."""
        return parse_bytes(self.ram, "$.memory.ram")

    @property
    def flash_bytes(self) -> int:
        """Flash in bytes; 0 where it is not named."""
        return parse_bytes(self.flash, "$.memory.flash") if self.flash else 0


@dataclasses.dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU: its `compute_capability` ("8.7"), streaming multiprocessors, deep learning accelerators."""

    name: str
    compute_capability: str
    sms: int
    dla: int = 0


@dataclasses.dataclass(frozen=True)
class OperatingSystem:
    """What the device is expected to run. `python` and `glibc` are empty where there is none."""

    name: str
    python: str = ""
    glibc: str = ""


@dataclasses.dataclass(frozen=True)
class RuntimeEntry:
    """A runtime that the device has or can get.

    `max_opset` caps ONNX models below what the version itself allows; `options` are the target's own, checked by it.
    """

    version: str
    max_opset: Optional[int] = None  # noqa: UP045 - the codec reads these types, and knows Optional
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Default:
    """What a build takes when nothing else is asked for."""

    runtime: str
    recipe: str


@dataclasses.dataclass(frozen=True)
class Int8:
    """How INT8 suits this processor.

    `scope` "all" quantises every operator, "compute" those that multiply; an empty type is the target's choice.
    """

    scope: str = "compute"
    weight_type: str = ""
    activation_type: str = ""


@dataclasses.dataclass(frozen=True)
class Profile:
    """One kind of device. `name` is the file's name without ".toml"."""

    name: str
    title: str
    kind: str
    cpu: Cpu
    memory: Memory
    runtimes: dict[str, RuntimeEntry]
    default: Default
    int8: Int8 = Int8()
    gpu: Optional[Gpu] = None  # noqa: UP045 - see RuntimeEntry
    os: Optional[OperatingSystem] = None  # noqa: UP045 - see RuntimeEntry
    max_opset: Optional[int] = None  # noqa: UP045 - see RuntimeEntry
    schema: str = "edgepack.profile/1"

    def runtime(self, name: str) -> RuntimeEntry:
        """The runtime of this name. Raises UsageError that lists those of this device."""
        if name not in self.runtimes:
            fix = f"take one of these, or add [runtimes.{name}] to a profile of your own"
            raise unknown_name(f"runtime of {self.name}", name, self.runtimes, fix=fix)
        return self.runtimes[name]

    def opset_cap(self, runtime: str) -> int | None:
        """The highest opset that this profile allows for a runtime, beside the version's own limit; None for no cap.

        Raises UsageError for a runtime that the profile does not name.
        """
        caps = [cap for cap in (self.max_opset, self.runtime(runtime).max_opset) if cap is not None]
        return min(caps, default=None)


def profile_names() -> list[str]:
    """The names of the profiles that edgepack ships, sorted."""
    names = (entry.name for entry in files("profiles").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_profile(name_or_path: str) -> Profile:
    """The shipped profile of this name, or the one in a file (what ends in ".toml" or has a slash is a path).

    Raises UsageError when there is none, ContractError that names the file and the place when it is not a profile.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
        try:
            return parse_profile(path.read_bytes(), path.name.removesuffix(".toml"), source=name_or_path)
        except OSError as error:
            raise UsageError(
                f"cannot read the profile: {error.strerror}",
                where=name_or_path,
                fix="give a path to a TOML file, or a name from: edgepack profiles list",
                code="no-profile-file",
            ) from error
    known = profile_names()
    if name_or_path not in known:
        fix = "edgepack profiles list; for a device of your own, give the path to its TOML (./my-board.toml)"
        raise unknown_name("profile", name_or_path, known, fix=fix)
    file = f"{name_or_path}.toml"
    return parse_profile(files("profiles").joinpath(file).read_bytes(), name_or_path, source=f"profiles/{file}")


def parse_profile(raw: bytes, name: str, source: str) -> Profile:
    """The profile in a TOML document whose file is called `name`. Raises ContractError, where `source` is the file."""
    try:
        data = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"not a TOML document: {error}", where=source, code="not-toml") from error
    profile = codec.decode(Profile, data, source=source)
    try:
        _check(profile, name)
    except ContractError as error:
        error.where = source
        raise
    return profile


def describe(profile: Profile) -> dict[str, Any]:
    """The profile as JSON-ready data, quantities also in bytes and hertz, what is not named left out."""
    document: dict[str, Any] = _named(codec.encode(profile))
    document["memory"]["ram_bytes"] = profile.memory.ram_bytes
    if profile.memory.flash:
        document["memory"]["flash_bytes"] = profile.memory.flash_bytes
    if profile.cpu.clock:
        document["cpu"]["clock_hz"] = parse_hertz(profile.cpu.clock)
    return document


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items() if item not in (None, "", [], {})}
    return [_named(item) for item in value] if isinstance(value, list) else value


def _check_json(value: Any, where: str) -> None:
    # TOML has dates and not-a-number; JSON, in which all of this ends, has neither.
    if isinstance(value, dict):
        for key, item in value.items():
            _check_json(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]")
    elif not isinstance(value, (str, int, float)) or not math.isfinite(value if isinstance(value, float) else 0):
        raise ContractError(f"{where}: expected text, a number or true/false, got {value!r}", code="wrong-type")


def _check(profile: Profile, name: str) -> None:
    if profile.name != name:
        raise ContractError(
            f"$.name: {profile.name!r} is not the file's name",
            expected=f'name = "{name}" in {name}.toml',
            fix="rename the file, or change `name`",
            code="name",
        )
    _match(_NAME, profile.name, "$.name", "raspberry-pi-5")
    _one_of(profile.kind, KINDS, "$.kind", "kind")
    _check_cpu(profile.cpu)
    parse_bytes(profile.memory.ram, "$.memory.ram")
    if profile.memory.flash:
        parse_bytes(profile.memory.flash, "$.memory.flash")
    if profile.gpu:
        _match(re.compile(r"\d+\.\d+"), profile.gpu.compute_capability, "$.gpu.compute_capability", "8.7")
        _at_least(profile.gpu.sms, 1, "$.gpu.sms")
        _at_least(profile.gpu.dla, 0, "$.gpu.dla")
    if profile.os:
        for key, example in (("python", "3.11"), ("glibc", "2.36")):
            if text := getattr(profile.os, key):
                _match(re.compile(r"\d+\.\d+"), text, f"$.os.{key}", example)
    _check_runtimes(profile)
    _one_of(profile.int8.scope, SCOPES, "$.int8.scope", "scope")
    for key in ("weight_type", "activation_type"):
        if text := getattr(profile.int8, key):
            _one_of(text, INT8_TYPES, f"$.int8.{key}", "type")


def _check_cpu(cpu: Cpu) -> None:
    _one_of(cpu.arch, CPU_FEATURES, "$.cpu.arch", "architecture")
    _at_least(cpu.cores, 1, "$.cpu.cores")
    for index, feature in enumerate(cpu.features):
        _one_of(feature, CPU_FEATURES[cpu.arch], f"$.cpu.features[{index}]", f"feature of {cpu.arch}")
    if cpu.clock:
        parse_hertz(cpu.clock, "$.cpu.clock")
    for index, cluster in enumerate(cpu.clusters):
        _at_least(cluster.cores, 1, f"$.cpu.clusters[{index}].cores")
        if cluster.clock:
            parse_hertz(cluster.clock, f"$.cpu.clusters[{index}].clock")
    together = sum(cluster.cores for cluster in cpu.clusters)
    if cpu.clusters and together != cpu.cores:
        raise ContractError(
            f"$.cpu.cores: {cpu.cores}, but the clusters have {together} cores together", code="inconsistent"
        )


def _check_runtimes(profile: Profile) -> None:
    for name, runtime in profile.runtimes.items():
        _match(_VERSION, runtime.version, f"$.runtimes.{name}.version", "1.32.0")
        if runtime.max_opset is not None:
            _at_least(runtime.max_opset, 13, f"$.runtimes.{name}.max_opset")
        _check_json(runtime.options, f"$.runtimes.{name}.options")
    if profile.max_opset is not None:
        _at_least(profile.max_opset, 13, "$.max_opset")
    _one_of(profile.default.runtime, profile.runtimes, "$.default.runtime", "runtime of this profile")
    _match(_NAME, profile.default.recipe, "$.default.recipe", "int8")


def _one_of(text: str, known: Any, where: str, what: str) -> None:
    if text not in known:
        near = nearest(text, known)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise ContractError(
            f"{where}: unknown {what} {text!r}{hint}",
            expected=f"one of: {', '.join(known) or 'none is named'}",
            code="unknown-value",
        )


def _match(pattern: re.Pattern[str], text: str, where: str, example: str) -> None:
    if not pattern.fullmatch(text):
        raise ContractError(f"{where}: {text!r} does not fit", expected=f'as in "{example}"', code="wrong-form")


def _at_least(number: int, least: int, where: str) -> None:
    if number < least:
        raise ContractError(f"{where}: {number} is below {least}", expected=f"{least} or more", code="out-of-range")
