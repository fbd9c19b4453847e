"""What each ONNX Runtime can load: the highest ai.onnx opset and the highest IR version of a model file.

Each row was measured with the release's own wheel (x86-64, CPU): one-node models of every opset and every IR version
were loaded, and the highest that loaded stands here. The table "ONNX opset support" on ONNX Runtime's compatibility
page says the same where it has a row, except for the IR version of 1.15: 8 there, while the release loads 9.
A file within these limits may still hold an operator for which the release has no kernel.
"""

from __future__ import annotations

import dataclasses
import re

from agent.contract.errors import ConvertError

# minor release: (opset, IR version, the wheel that was measured)
_MEASURED = {
    (1, 10): (15, 8, "1.10.0"),
    (1, 11): (16, 8, "1.11.1"),
    (1, 12): (17, 8, "1.12.1"),
    (1, 13): (17, 8, "1.13.1"),
    (1, 14): (18, 8, "1.14.1"),
    (1, 15): (19, 9, "1.15.1"),
    (1, 16): (19, 9, "1.16.3"),
    (1, 17): (20, 9, "1.17.3"),
    (1, 18): (21, 10, "1.18.1"),
    (1, 19): (21, 10, "1.19.2"),
    (1, 20): (21, 10, "1.20.1"),
    (1, 21): (22, 10, "1.21.1"),
    (1, 22): (22, 10, "1.22.1"),
    (1, 23): (23, 11, "1.23.2"),
    (1, 24): (25, 13, "1.24.1"),
    (1, 25): (26, 13, "1.25.0"),
    (1, 26): (26, 13, "1.26.0"),
    (1, 27): (26, 13, "1.27.0"),
    (1, 28): (26, 13, "1.28.0"),
    (1, 29): (26, 13, "1.29.0"),
    (1, 30): (26, 13, "1.30.0"),
    (1, 31): (26, 13, "1.31.0"),
    (1, 32): (28, 14, "1.32.0"),
}
OLDEST, NEWEST = min(_MEASURED), max(_MEASURED)


@dataclasses.dataclass(frozen=True)
class OnnxLimits:
    """The highest opset and IR version a runtime loads; `source` says how we know; `known` is False for a guess."""

    opset: int
    ir_version: int
    source: str
    known: bool = True


def limits(runtime_version: str) -> OnnxLimits:
    """What ONNX Runtime `runtime_version` ("1.23.2") loads.

    A release newer than the table gets the newest row, and says so: newer releases load what older ones did.
    Raises ConvertError for a release older than the table, and for what is not a version.
    """
    match = re.match(r"(\d+)\.(\d+)(?![^.+a-z-])", runtime_version)
    if match is None:
        raise ConvertError(
            f"{runtime_version!r} is not a version of ONNX Runtime", expected='as in "1.23.2"', code="not-a-version"
        )
    minor = (int(match[1]), int(match[2]))
    if minor < OLDEST:
        raise ConvertError(
            f"ONNX Runtime {runtime_version} is older than what edgepack builds for",
            expected=f"{_text(OLDEST)} or newer",
            fix="install a newer onnxruntime on the device, and name it in the profile (runtimes.onnxruntime.version)",
            code="runtime-too-old",
        )
    if minor > NEWEST:
        opset, ir_version, wheel = _MEASURED[NEWEST]
        note = f"onnxruntime {runtime_version} is newer than edgepack knows: the limits of {wheel}, which it also loads"
        return OnnxLimits(opset, ir_version, note, known=False)
    opset, ir_version, wheel = _MEASURED[minor]
    return OnnxLimits(opset, ir_version, f"measured with the wheel of onnxruntime {wheel}")


def _text(minor: tuple[int, int]) -> str:
    return f"{minor[0]}.{minor[1]}"


def oldest_for(opset: int, ir_version: int) -> str:
    """The oldest ONNX Runtime in the table ("1.16") that loads a file of this opset and IR version.

    Raises ConvertError when none does.
    """
    for minor in sorted(_MEASURED):
        if _MEASURED[minor][0] >= opset and _MEASURED[minor][1] >= ir_version:
            return _text(minor)
    newest = _MEASURED[NEWEST]
    raise ConvertError(
        f"no ONNX Runtime that edgepack knows loads opset {opset}, IR version {ir_version}",
        expected=f"opset {newest[0]} and IR version {newest[1]} at most",
        code="opset",
    )
