"""The note for the app's developer that an Android bundle carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packager.artifact import Artifact


def integration_note(artifact: Artifact, quantization: Mapping[str, Mapping[str, Any]], least: str) -> str:
    """How the model goes into an app: dependency, tensors, the way between pixels and integers. Markdown."""
    lines = [
        "# Using this model in an Android app",
        "",
        "Not run on a phone by edgepack: checked on the host against the original's outputs only.",
        "",
        f"1. Dependency: `implementation 'com.google.ai.edge.litert:litert:{least}'` or newer.",
        "2. Put the `.tflite` under `src/main/assets/`, uncompressed: `androidResources { noCompress 'tflite' }`.",
        "3. Tensors, in this order:",
        "",
        "| | name | type | shape | layout | real value |",
        "|---|---|---|---|---|---|",
    ]
    for side, specs in (("input", artifact.inputs), ("output", artifact.outputs)):
        for spec in specs:
            shape = " x ".join(str(size) for size in spec.shape) or "scalar"
            q = quantization.get(spec.name)
            real = f"(q - {q['zero_point']}) * {q['scale']:.9g}" if q else "as it is"
            lines.append(f"| {side} | `{spec.name}` | {spec.dtype} | {shape} | {spec.layout or '-'} | {real} |")
    lines += [
        "",
        "An integer input is `round(real / scale) + zero point`, held within the type's range.",
        "Measure on the phone itself, warmed up and over minutes: phones slow down as they heat.",
        "",
    ]
    return "\n".join(lines)
