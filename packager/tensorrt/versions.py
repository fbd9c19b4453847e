"""What each TensorRT takes: the opset ceiling and IR version of its ONNX parser, and how its network is typed.

Sources: the first line of onnx-tensorrt's docs/operators.md at each release (8.5 and 8.6: opset 17; 10.0 to 10.3: opset
20; 11: opset 25). Between 10.4 and 10.16 a ceiling of 24 is documented for 10.15 only, and opset 20 is kept: it is the
highest that edgepack's other steps were tried with. IR versions are those that belong to the opsets, at most 10.
"""

from __future__ import annotations

import dataclasses
import re

from agent.contract.errors import ConvertError

OLDEST = (8, 5)
_CEILINGS = {(8, 5): (17, 8), (10, 0): (20, 10), (11, 0): (20, 10)}
STRONG_MAJOR = 10  # NetworkDefinitionCreationFlag.STRONGLY_TYPED: from 10 on for us (8.x has none of it)


@dataclasses.dataclass(frozen=True)
class Limits:
    """`strong`: the network takes its types from the ONNX file alone (no precision flags)."""

    version: tuple[int, int]
    opset: int
    ir_version: int
    strong: bool


def limits(version: str) -> Limits:
    """What TensorRT `version` ("10.3.0") takes. Raises ConvertError below 8.5 and for what is no version."""
    numbers = parse(version)
    if numbers < OLDEST:
        raise ConvertError(
            f"TensorRT {version} is older than what edgepack builds for",
            expected="TensorRT 8.5 (JetPack 5.1) or newer",
            fix="update JetPack on the device, and name its version in the profile (runtimes.tensorrt.version)",
            code="runtime-too-old",
        )
    row = max(key for key in _CEILINGS if key <= numbers)
    opset, ir_version = _CEILINGS[row]
    return Limits(numbers, opset, ir_version, strong=numbers[0] >= STRONG_MAJOR)


def parse(version: str) -> tuple[int, int]:
    """The first two numbers. Raises ConvertError."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ConvertError(f"{version!r} is not a version of TensorRT", expected='as in "10.3.0"', code="not-a-version")
    return int(match[1]), int(match[2])


def below(version: str) -> str:
    """The first version that a bundle for `version` is not for: the next major one ("10" follows 8 on Jetson)."""
    return str({8: 10}.get(parse(version)[0], parse(version)[0] + 1))


def show(version: tuple[int, int]) -> str:
    """8.6."""
    return f"{version[0]}.{version[1]}"
