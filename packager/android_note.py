"""The note for the app's developer that an Android bundle carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.contract.manifest import Preprocessing
    from packager.artifact import Artifact


def integration_note(
    artifact: Artifact,
    quantization: Mapping[str, Mapping[str, Any]],
    least: str,
    preprocessing: Preprocessing | None = None,
    labelled: str = "",
) -> str:
    """How the model goes into an app: dependency, tensors, the way between pixels and integers. Markdown.

    `least` is the oldest LiteRT that runs it; `labelled` the output whose labels are in the file.
    """
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
    if preprocessing is not None:
        lines += ["", _pixels(preprocessing)]
    if labelled:
        told = "one for each value of the last axis; `MetadataExtractor` gives it, or any unzip"
        lines += ["", f"`labels.txt` inside the `.tflite` holds the labels of `{labelled}`, {told}."]
    lines += [
        "",
        "An integer input is `round(real / scale) + zero point`, held within the type's range.",
        "Measure on the phone itself, warmed up and over minutes: phones slow down as they heat.",
        "",
    ]
    return "\n".join(lines)


def _pixels(preprocessing: Preprocessing) -> str:
    height, width = preprocessing.size
    mean, std = (", ".join(f"{value:.6g}" for value in side) for side in (preprocessing.mean, preprocessing.std))
    return (
        f"A picture is resized to {width} x {height}, its {preprocessing.color.upper()} values are divided by 255, "
        f"then (value - mean) / std with mean {mean} and std {std}. The metadata say the same of values of 0 to 255."
    )
