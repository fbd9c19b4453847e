"""Damaged and hostile bundles: each test is named after its fault. Exit code 7, and nothing outside the folder."""

import json
import stat
import zipfile

import pytest

from packager.cli.main import run
from tests.packager import models

USAGE, INTEGRITY = 2, 7


@pytest.fixture
def bundle(place, capfd):
    models.classifier(place / "m.onnx")
    assert run(["build", "m.onnx", "-t", "linux-x86-64", "-r", "fp32", "-o", "b.edgepack"]) == 0
    capfd.readouterr()
    return place / "b.edgepack"


@pytest.fixture
def rejected(refused):
    """What inspect, verify and unpack say of a bundle; `verify` may be the only one that sees it."""

    def call(bundle, *, status=INTEGRITY, verbs=("inspect", "verify", "unpack")):
        said = []
        for verb in verbs:
            found, text = refused(verb, bundle, *(["out"] if verb == "unpack" else []))
            assert found == status, (verb, text)
            said.append(text)
        return said[-1]

    return call


def rewrite(bundle, change):
    """The bundle with its entries changed: `change` takes and gives (ZipInfo, bytes) pairs."""
    with zipfile.ZipFile(bundle) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(bundle, "w") as archive:
        for info, raw in change(entries):
            archive.writestr(info, raw)


def entry(name, mode=0o100644):
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = mode << 16
    return info


def in_manifest(bundle, edit):
    def change(entries):
        manifest = json.loads(entries[0][1])
        edit(manifest)
        return [(entries[0][0], json.dumps(manifest).encode()), *entries[1:]]

    rewrite(bundle, change)


def test_no_such_bundle(rejected):
    assert "there is no such bundle" in rejected("nothing.edgepack", status=USAGE)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18)])
def test_not_a_bundle(rejected, place, content):
    (place / "b.edgepack").write_bytes(content)
    rejected("b.edgepack")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated(rejected, bundle, share):
    raw = bundle.read_bytes()
    bundle.write_bytes(raw[: int(len(raw) * share)])
    rejected(bundle)


def test_flipped_bit_in_any_file(rejected, bundle):
    with zipfile.ZipFile(bundle) as archive:
        offsets = {info.filename: info.header_offset + 30 + len(info.filename) for info in archive.infolist()}
    raw = bundle.read_bytes()
    for name, offset in offsets.items():
        damaged = bytearray(raw)
        damaged[offset + 20] ^= 1
        bundle.write_bytes(damaged)
        text = rejected(bundle, verbs=("verify", "unpack"))
        assert name in text


def test_file_changed_and_its_checksum_with_it(rejected, bundle):
    def change(entries):
        return [
            (info, raw.replace(b"conv1", b"conv2") if info.filename == "model/model.onnx" else raw)
            for info, raw in entries
        ]

    rewrite(bundle, change)
    assert "sha256" in rejected(bundle, verbs=("verify", "unpack"))


def test_extra_file(rejected, bundle):
    rewrite(bundle, lambda entries: [*entries, (entry("extra.txt"), b"hello")])
    assert "extra.txt" in rejected(bundle)


def test_missing_file(rejected, bundle):
    rewrite(bundle, lambda entries: entries[:-1])
    assert "missing" in rejected(bundle)


def test_manifest_is_not_first(rejected, bundle):
    rewrite(bundle, lambda entries: [*entries[1:], entries[0]])
    assert "not the first file" in rejected(bundle)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "model/../../evil.txt", "a//b", ".hidden", "C:\\evil"]
)
def test_path_that_leads_outside(rejected, bundle, place, name):
    import hashlib

    def change(entries):
        manifest = json.loads(entries[0][1])
        manifest["files"][name] = {"sha256": hashlib.sha256(b"evil").hexdigest(), "size": 4}
        return [(entries[0][0], json.dumps(manifest).encode()), *entries[1:], (entry(name), b"evil")]

    rewrite(bundle, change)
    rejected(bundle)
    assert not (place.parent / "evil.txt").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR])
def test_link_or_device_inside(rejected, bundle, kind):
    def change(entries):
        changed = entry(entries[-1][0].filename, kind | 0o777)
        return [*entries[:-1], (changed, entries[-1][1])]

    rewrite(bundle, change)
    assert "not a plain file" in rejected(bundle)


def test_compressed_entry(rejected, bundle):
    def change(entries):
        for info, _ in entries[1:]:
            info.compress_type = zipfile.ZIP_DEFLATED
        return entries

    rewrite(bundle, change)
    assert "compressed" in rejected(bundle)


def test_newer_schema(rejected, bundle):
    in_manifest(bundle, lambda manifest: manifest.update(schema="edgepack.manifest/2"))
    text = rejected(bundle, status=USAGE)
    assert "edgepack.manifest/1" in text
    assert "edgepack.manifest/2" in text
    assert "update edgepack" in text


def test_unknown_key_in_the_manifest(rejected, bundle):
    in_manifest(bundle, lambda manifest: manifest.update(tarjet="x"))
    assert "did you mean 'target'" in rejected(bundle, status=USAGE)


def test_manifest_that_is_no_json(rejected, bundle):
    rewrite(bundle, lambda entries: [(entries[0][0], b"{not json"), *entries[1:]])
    rejected(bundle, status=USAGE)


def test_unpack_into_a_folder_that_is_not_empty(refused, bundle, place):
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("keep")
    status, said = refused("unpack", bundle, "full")
    assert (status, "not empty" in said) == (USAGE, True)
