"""TFLite metadata: what an app's tools read from the model itself: names, axes, normalisation, ranges and labels.

The schema is TensorFlow Lite Support's metadata_schema.fbs (identifier M001), as far as its version 1.0.0 goes. The document
lies in the model under the name TFLITE_METADATA; associated files (the labels) are a zip archive behind the flatbuffer,
which the metadata's readers open as an archive and TFLite's loader passes over.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager.flat_tables import decode, encode
from packager.tflite_model import parse_model, schema, text, to_bytes

if TYPE_CHECKING:
    from agent.contract.manifest import Preprocessing, TensorSpec

NAME = b"TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER = "1.0.0"
_AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS
_RGB, _GREY = 1, 2  # ColorSpaceType
_COLOURS = {1: _GREY, 3: _RGB}
_BYTE = 255.0
_RANK = 4
_TIME = (1980, 1, 1, 0, 0, 0)

SCHEMA = {
    "ModelMetadata": [
        ("name", "string"),
        ("description", "string"),
        ("version", "string"),
        ("subgraph_metadata", "[SubGraphMetadata]"),
        ("author", "string"),
        ("license", "string"),
        ("associated_files", "[AssociatedFile]"),
        ("min_parser_version", "string"),
    ],
    "SubGraphMetadata": [
        ("name", "string"),
        ("description", "string"),
        ("input_tensor_metadata", "[TensorMetadata]"),
        ("output_tensor_metadata", "[TensorMetadata]"),
        ("associated_files", "[AssociatedFile]"),
    ],
    "TensorMetadata": [
        ("name", "string"),
        ("description", "string"),
        ("dimension_names", "[string]"),
        ("content", "Content"),
        ("process_units", "[ProcessUnit]"),
        ("stats", "Stats"),
        ("associated_files", "[AssociatedFile]"),
    ],
    "Content": [("content_properties", "FeatureProperties|ImageProperties|BoundingBoxProperties")],
    "FeatureProperties": [],
    "ImageProperties": [("color_space", "byte"), ("default_size", "ImageSize")],
    "ImageSize": [("width", "uint"), ("height", "uint")],
    "BoundingBoxProperties": [("index", "[uint]"), ("type", "byte"), ("coordinate_type", "byte")],
    "ProcessUnit": [("options", "NormalizationOptions|ScoreCalibrationOptions|ScoreThresholdingOptions")],
    "NormalizationOptions": [("mean", "[float]"), ("std", "[float]")],
    "ScoreCalibrationOptions": [("score_transformation", "byte"), ("default_score", "float")],
    "ScoreThresholdingOptions": [("global_score_threshold", "float")],
    "Stats": [("max", "[float]"), ("min", "[float]")],
    "AssociatedFile": [("name", "string"), ("description", "string"), ("type", "byte"), ("locale", "string")],
}


@dataclasses.dataclass(frozen=True)
class Labels:
    """The words for the last axis of one output, in its order."""

    output: str
    words: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its name in the archive."""
        return "labels.txt"


def read_labels(given: str, outputs: Sequence[TensorSpec]) -> Labels:
    """`FILE` (one label a line) for a model's only output, or `OUTPUT=FILE`. Raises UsageError for what does not fit."""
    names = [spec.name for spec in outputs]
    name, equals, path = given.partition("=")
    if not equals or name not in names:
        name, path = "", given
    if not name and len(outputs) > 1:
        raise UsageError(
            f"the model has {len(outputs)} outputs, and --labels names none",
            expected=f"--labels OUTPUT=FILE, one of: {', '.join(names)}",
            code="labels",
        )
    spec = outputs[names.index(name)] if name else outputs[0]
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the labels cannot be read: {error}", where=path, code="labels") from error
    words = [line.strip() for line in lines]
    while words and not words[-1]:
        words.pop()
    size = spec.shape[-1] if spec.shape else None
    if not all(words) or (isinstance(size, int) and len(words) != size):
        told = f"{len(words)} labels" if all(words) else f"line {words.index('') + 1} of the labels is empty"
        raise UsageError(
            f"{told}, but the output {spec.name!r} has {size} values",
            where=path,
            expected="one label a line, in the order of the output's last axis",
            code="labels",
        )
    return Labels(spec.name, tuple(words))


def describe(
    title: tuple[str, str],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    quantization: Mapping[str, Mapping[str, Any]],
    preprocessing: Preprocessing | None = None,
    labels: Labels | None = None,
) -> dict[str, Any]:
    """The ModelMetadata document. `title` is name and description; `quantization` scale and zero point by tensor."""
    taken = [_tensor(spec, quantization.get(spec.name), preprocessing) for spec in inputs]
    given = [_tensor(spec, quantization.get(spec.name), None, labels) for spec in outputs]
    return {
        "name": title[0],
        "description": title[1],
        "subgraph_metadata": [{"input_tensor_metadata": taken, "output_tensor_metadata": given}],
        "min_parser_version": _PARSER,
    }


def _tensor(
    spec: TensorSpec,
    scale: Mapping[str, Any] | None,
    preprocessing: Preprocessing | None,
    labels: Labels | None = None,
) -> dict[str, Any]:
    told = f"{spec.dtype} of {' x '.join(str(size) for size in spec.shape) or 'no dimensions'}"
    if scale:
        told += f"; the real value is (q - {scale['zero_point']}) * {scale['scale']:.9g}"
    found: dict[str, Any] = {
        "name": spec.name,
        "description": told,
        "dimension_names": _axes(spec),
        "content": {"content_properties": {"FeatureProperties": {}}},
    }
    if _is_picture(spec):
        size = {"width": spec.shape[2], "height": spec.shape[1]}
        properties = {"color_space": _COLOURS[int(spec.shape[3])], "default_size": size}
        found["content"] = {"content_properties": {"ImageProperties": properties}}
        if preprocessing is not None:
            found |= _normalisation(preprocessing)
    if scale and spec.dtype in _LIMITS and "stats" not in found:
        ends = [(limit - scale["zero_point"]) * scale["scale"] for limit in _LIMITS[spec.dtype]]
        found["stats"] = {"min": [ends[0]], "max": [ends[1]]}
    if labels is not None and labels.output == spec.name:
        told = "a label for each value of the last axis"
        found["associated_files"] = [{"name": labels.file, "description": told, "type": _AXIS_LABELS}]
    return found


_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


def _is_picture(spec: TensorSpec) -> bool:
    """What the schema calls an image: height, width and channels in this order, grey or red, green and blue."""
    return spec.layout == "nhwc" and len(spec.shape) == _RANK and spec.shape[3] in _COLOURS and _fixed(spec)


def _fixed(spec: TensorSpec) -> bool:
    return all(isinstance(size, int) for size in spec.shape)


def _axes(spec: TensorSpec) -> list[str]:
    letters = {"n": "batch", "h": "height", "w": "width", "c": "channels"}
    return [letters[letter] for letter in spec.layout] if len(spec.layout) == len(spec.shape) else []


def _normalisation(preprocessing: Preprocessing) -> dict[str, Any]:
    """(pixel - mean) / std for pixels of 0 to 255, where ours are for 0 to 1; the range that this gives."""
    mean, std = ([value * _BYTE for value in side] for side in (preprocessing.mean, preprocessing.std))
    count = max(len(mean), len(std))
    mean, std = (side * count if len(side) == 1 else side for side in (mean, std))
    ends = [[(pixel - m) / s for m, s in zip(mean, std, strict=True)] for pixel in (0.0, _BYTE)]
    return {
        "process_units": [{"options": {"NormalizationOptions": {"mean": mean, "std": std}}}],
        "stats": {"min": ends[0], "max": ends[1]},
    }


def write_metadata(raw: bytes, document: Mapping[str, Any], labels: Labels | None = None) -> bytes:
    """The model with this metadata in the place of any other; the same input gives the same bytes."""
    model = parse_model(raw)
    fb = schema()
    model.metadata = [entry for entry in model.metadata or [] if text(entry.name) != NAME.decode()]
    buffer, entry = fb.BufferT(), fb.MetadataT()
    import numpy as np

    buffer.data = np.frombuffer(encode(document, "ModelMetadata", SCHEMA, _IDENTIFIER), dtype=np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = NAME, len(model.buffers) - 1
    model.metadata.append(entry)
    whole = io.BytesIO(to_bytes(model))
    if labels is not None:
        with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
            content = "".join(f"{word}\n" for word in labels.words)
            archive.writestr(zipfile.ZipInfo(labels.file, _TIME), content.encode())
    return whole.getvalue()


def read_metadata(raw: bytes) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """The document in a model (None where there is none), and the associated files. Raises ConvertError."""
    model = parse_model(raw)
    found = next((entry for entry in model.metadata or [] if text(entry.name) == NAME.decode()), None)
    if found is None:
        return None, {}
    data = model.buffers[found.buffer].data
    document = decode(bytes(bytearray(data if data is not None else b"")), "ModelMetadata", SCHEMA, _IDENTIFIER)
    return document, _associated(raw)


def _associated(raw: bytes) -> dict[str, bytes]:
    if not zipfile.is_zipfile(io.BytesIO(raw)):
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            # What is larger than the model that it came in was packed: labels never are.
            small = [info for info in archive.infolist() if info.file_size <= len(raw)]
            return {info.filename: archive.read(info) for info in small}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ConvertError(f"the files behind the model are damaged: {error}", code="corrupt-metadata") from error
