"""A bundle is read with suspicion: each way of being broken, by name."""

import json
import stat
import warnings
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.archive import BundleReader, check_name, read_manifest_file, verify_folder
from agent.contract.errors import ContractError, EdgepackError, IntegrityError, UsageError
from tests.agent.bundles import CONTENTS, entries, info, manifest, write_bundle, write_entries


@pytest.fixture
def bundle(tmp_path):
    return tmp_path / "small.edgepack"


def refused(path, match, kind=IntegrityError):
    with pytest.raises(kind, match=match) as caught, BundleReader(path) as reader:
        reader.verify()
    assert caught.value.where
    return caught.value


def test_a_whole_bundle_is_read_and_unpacked(bundle, tmp_path):
    digest = write_bundle(bundle)
    with BundleReader(bundle) as reader:
        assert reader.digest == digest
        reader.verify()
        assert reader.read("model/model.onnx") == CONTENTS["model/model.onnx"]
        reader.extract(tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert verify_folder(tmp_path / "out", digest) == read_manifest_file(tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "model/../../evil", "/etc/passwd", "a//b", "", ".hidden", "a/.b", "a\\b"])
@pytest.mark.parametrize("listed", [True, False], ids=["in-the-manifest", "not-in-the-manifest"])
def test_path_that_leads_elsewhere(bundle, name, listed):
    contents = {**CONTENTS, name: b"x"}
    write_entries(bundle, entries(manifest(contents if listed else CONTENTS), contents))
    refused(bundle, "names a file|no name|not a plain file")


@pytest.mark.parametrize("name", ["con\n", "a\x00b", "ä", "x" * 201, "/".join("abcdefghi"), "-rf", "$(id)", "a b"])
def test_name_that_a_shell_or_file_system_may_misread(name):
    with pytest.raises(IntegrityError, match="names a file"):
        check_name(name, "small.edgepack")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFSOCK])
def test_link_folder_or_device(bundle, kind):
    parts = entries()
    parts[1] = (info(parts[1][0], kind | 0o777), parts[1][1])
    write_entries(bundle, parts)
    refused(bundle, "not a plain file")


def test_folder_entry(bundle):
    write_entries(bundle, [*entries(), (info("model/", stat.S_IFDIR | 0o755), b"")])
    refused(bundle, "names a file|not a plain file")


def test_compressed(bundle):
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries():
            archive.writestr(info(name), data, zipfile.ZIP_DEFLATED)
    refused(bundle, "is compressed")


def test_compressed_model_behind_a_stored_manifest(bundle):
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries():
            archive.writestr(info(name), data, zipfile.ZIP_STORED if name == "manifest.json" else zipfile.ZIP_DEFLATED)
    refused(bundle, "is compressed")


def test_encrypted_flag(bundle):
    write_bundle(bundle)
    data = bytearray(bundle.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := data.find(signature, place + 1)) >= 0:
            data[place + offset] |= 1
    bundle.write_bytes(data)
    refused(bundle, "encrypted")


def test_extra_file(bundle):
    write_entries(bundle, [*entries(), ("model/more.bin", b"x")])
    assert "model/more.bin" in refused(bundle, "not in the manifest").what


def test_missing_file(bundle):
    write_entries(bundle, entries()[:-1])
    assert "model/model.onnx" in refused(bundle, "missing").what


def test_file_that_is_there_twice(bundle):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns about what this test makes on purpose
        write_entries(bundle, [*entries(), entries()[-1]])
    assert "model/model.onnx" in refused(bundle, "twice").what


def test_manifest_that_is_there_twice(bundle):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        write_entries(bundle, [*entries(), entries()[0]])
    refused(bundle, "twice")


def test_manifest_not_first(bundle):
    parts = entries()
    write_entries(bundle, [parts[1], parts[0], *parts[2:]])
    refused(bundle, "not the first file")


def test_no_manifest(bundle):
    write_entries(bundle, entries()[1:])
    refused(bundle, "not the first file")


def test_empty_zip(bundle):
    write_entries(bundle, [])
    refused(bundle, "not the first file")


def test_model_that_is_not_among_the_files(bundle):
    write_entries(bundle, entries(manifest(model="model/other.onnx")))
    refused(bundle, "not among the files")


def test_model_whose_name_leads_elsewhere(bundle):
    write_entries(bundle, entries(manifest(model="../model.onnx")))
    refused(bundle, "names a file")


def test_file_of_another_size(bundle):
    write_entries(bundle, [*entries()[:-1], ("model/model.onnx", CONTENTS["model/model.onnx"] + b"!")])
    refused(bundle, "1801 bytes")


def test_file_of_the_same_size_and_another_hash(bundle):
    write_entries(bundle, [*entries()[:-1], ("model/model.onnx", CONTENTS["model/model.onnx"][::-1])])
    refused(bundle, "has sha256")


def test_nothing_is_left_of_a_file_outside_the_folder(bundle, tmp_path):
    write_entries(bundle, [*entries(), ("../escaped", b"x")])
    with pytest.raises(IntegrityError), BundleReader(bundle) as reader:
        reader.extract(tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("escaped"))


def test_folder_that_is_not_empty(bundle, tmp_path):
    write_bundle(bundle)
    with BundleReader(bundle) as reader, pytest.raises(IntegrityError, match="not empty"):
        reader.extract(tmp_path)


def test_newer_schema(bundle):
    document = json.loads(manifest().to_bytes())
    document["schema"] = "edgepack.manifest/9"
    write_entries(bundle, [("manifest.json", json.dumps(document).encode()), *sorted(CONTENTS.items())])
    error = refused(bundle, "edgepack.manifest/9", ContractError)
    assert "edgepack.manifest/1" in error.expected
    assert "update edgepack" in error.fix


def test_manifest_that_is_not_json(bundle):
    write_entries(bundle, [("manifest.json", b"{"), *sorted(CONTENTS.items())])
    refused(bundle, "not a JSON document", ContractError)


def test_manifest_nested_without_end(bundle):
    write_entries(bundle, [("manifest.json", b"[" * 200_000), *sorted(CONTENTS.items())])
    refused(bundle, "not a JSON document", ContractError)


def test_manifest_larger_than_any_manifest(bundle):
    write_entries(bundle, [("manifest.json", b" " * (5 << 20)), *sorted(CONTENTS.items())])
    refused(bundle, "bytes")


def test_not_a_zip(bundle):
    bundle.write_bytes(b"\x08\x07onnx" * 50)
    refused(bundle, "not a whole bundle")


def test_no_such_file(bundle):
    with pytest.raises(UsageError, match="no such bundle"):
        BundleReader(bundle)


@given(share=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_truncated_anywhere(share, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "cut.edgepack"
    write_bundle(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(IntegrityError), BundleReader(path) as reader:
        reader.verify()


@given(share=st.floats(min_value=0, max_value=1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flipped_anywhere_is_told_or_changes_nothing(share, bit, tmp_path_factory):
    """A flip is an error, or lies where a zip holds what nobody reads (a date): never a wrong byte, never a crash."""
    path = tmp_path_factory.mktemp("flip") / "flip.edgepack"
    digest = write_bundle(path)
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1 << bit
    path.write_bytes(data)
    try:
        with BundleReader(path) as reader:
            assert reader.digest == digest
            assert {name: reader.read(name) for name in CONTENTS} == CONTENTS
    except EdgepackError:
        pass


def test_unpacked_file_that_changed_is_named(bundle, tmp_path):
    digest = write_bundle(bundle)
    with BundleReader(bundle) as reader:
        reader.extract(tmp_path / "out")
    (tmp_path / "out/model/model.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"model/model\.onnx has changed"):
        verify_folder(tmp_path / "out", digest)
    (tmp_path / "out/model/model.onnx").unlink()
    with pytest.raises(IntegrityError, match=r"model/model\.onnx cannot be read"):
        verify_folder(tmp_path / "out", digest)


def test_unpacked_manifest_that_changed_or_is_gone(bundle, tmp_path):
    digest = write_bundle(bundle)
    with BundleReader(bundle) as reader:
        reader.extract(tmp_path / "out")
    with (tmp_path / "out/manifest.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(IntegrityError, match="digest is"):
        verify_folder(tmp_path / "out", digest)
    (tmp_path / "out/manifest.json").unlink()
    with pytest.raises(IntegrityError):
        verify_folder(tmp_path / "out", digest)
    with pytest.raises(IntegrityError, match="no readable manifest"):
        read_manifest_file(tmp_path / "out")
