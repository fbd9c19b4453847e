"""Small bundles made by hand, whole or broken in one way."""

import dataclasses
import hashlib
import zipfile

from agent.contract.manifest import FileEntry, Manifest, RuntimeNeed, Source, TensorSpec, manifest_digest

EPOCH = (1980, 1, 1, 0, 0, 0)
CONTENTS = {"model/model.onnx": b"not really a model" * 100, "golden/input_0.npy": b"nor an array"}


def entry(data):
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def manifest(contents=None, **changes):
    """A manifest of these files that is right in all but what `changes` says."""
    contents = CONTENTS if contents is None else contents
    whole = Manifest(
        name="small",
        target="linux-x86-64",
        runtime=RuntimeNeed(name="onnxruntime", min_version="1.16.0"),
        model="model/model.onnx",
        files={name: entry(data) for name, data in sorted(contents.items())},
        inputs=[TensorSpec("x", "float32", ["batch", 3])],
        outputs=[TensorSpec("y", "float32", ["batch", 2])],
        recipe={"name": "fp32"},
        source=Source(format="onnx", name="small.onnx", digest="0" * 64, size_bytes=10),
        steps=[],
        edgepack="0.1.0",
    )
    return dataclasses.replace(whole, **changes)


def info(name, mode=0o100644):
    told = zipfile.ZipInfo(name, date_time=EPOCH)
    told.external_attr = mode << 16
    told.create_system = 3
    return told


def write_entries(path, entries):
    """A zip of (name or ZipInfo, bytes) in this order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(info(name) if isinstance(name, str) else name, data)
    return path


def entries(document=None, contents=None):
    """What a whole bundle holds, in order."""
    contents = CONTENTS if contents is None else contents
    document = manifest(contents) if document is None else document
    return [("manifest.json", document.to_bytes()), *sorted(contents.items())]


def write_bundle(path, document=None, contents=None):
    """A whole bundle; returns its digest."""
    parts = entries(document, contents)
    write_entries(path, parts)
    return manifest_digest(parts[0][1])
