"""Metadata in a phone's .tflite: written, read back, and the file still runs; the oldest LiteRT is known or refused."""

import io
import zipfile

import numpy as np
import pytest

from agent.contract.archive import BundleReader
from agent.contract.errors import ConvertError, UsageError
from agent.contract.manifest import Preprocessing, TensorSpec
from packager.flat_tables import decode, encode
from packager.litert_versions import RELEASES, lacking, oldest_for, operator_versions
from packager.pipeline import build
from packager.tflite_metadata import SCHEMA, read_labels, read_metadata
from packager.tflite_model import parse_model, to_bytes
from packager.tflite_run import run_tflite
from tests.tflite_models import classifier, needs_tflite, samples

pytestmark = needs_tflite
WORDS = ["cat", "dog", "Käse", "tree", "way"]


@pytest.fixture
def model(tmp_path):
    (tmp_path / "net.tflite").write_bytes(classifier())
    (tmp_path / "labels.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    np.savez(tmp_path / "cal.npz", image=samples())
    return tmp_path / "net.tflite"


def made(model, recipe="int8", **options):
    folder = model.parent
    built = build(
        str(model),
        options.pop("target", "android-arm64"),
        recipe=recipe,
        calibration=str(folder / "cal.npz") if recipe == "int8" else None,
        output=folder / "phone.edgepack",
        target_options=options,
        preprocessing=Preprocessing(size=[8, 8], mean=[0.5, 0.4, 0.3], std=[0.25]),
    )
    with BundleReader(built.bundle) as reader:
        return built, reader.read(built.manifest.model), reader.read("INTEGRATION.md").decode()


def test_names_shapes_normalisation_and_labels_are_read_back(model, tmp_path):
    built, raw, note = made(model, labels=str(tmp_path / "labels.txt"))
    document, files = read_metadata(raw)
    assert document["name"] == "net"
    (graph,) = document["subgraph_metadata"]
    (image,), (scores,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    assert image["name"] == "image"
    assert image["description"].startswith("int8 of 1 x 8 x 8 x 3; the real value is (q - ")
    assert image["dimension_names"] == ["batch", "height", "width", "channels"]
    picture = image["content"]["content_properties"]["ImageProperties"]
    assert picture == {"color_space": 1, "default_size": {"width": 8, "height": 8}}
    normal = image["process_units"][0]["options"]["NormalizationOptions"]
    assert normal["mean"] == pytest.approx([127.5, 102.0, 76.5])
    assert normal["std"] == pytest.approx([63.75] * 3)
    assert image["stats"]["max"] == pytest.approx([2.0, 2.4, 2.8])
    assert scores["associated_files"][0]["name"] == "labels.txt"
    assert files["labels.txt"].decode().split("\n") == [*WORDS, ""]
    assert [step.name for step in built.manifest.steps][-1] == "write_metadata"
    assert "labels of `probabilities`" in note
    assert "mean 0.5, 0.4, 0.3 and std 0.25" in note


def test_file_with_metadata_runs_and_computes_what_it_did(model, tmp_path):
    _, raw, _ = made(model, "fp32", labels=str(tmp_path / "labels.txt"))
    (tmp_path / "phone.tflite").write_bytes(raw)
    batches = [{"image": one[None]} for one in samples(4)]
    before, after = (
        list(run_tflite(path, batches, ["image"], ["probabilities"])) for path in (model, tmp_path / "phone.tflite")
    )
    for left, right in zip(before, after, strict=True):
        assert np.allclose(left["probabilities"], right["probabilities"], atol=1e-6)


def test_same_inputs_give_the_same_bytes(model, tmp_path):
    first, _, _ = made(model, labels=str(tmp_path / "labels.txt"))
    second, _, _ = made(model, labels=str(tmp_path / "labels.txt"))
    assert first.digest == second.digest


def test_other_devices_get_no_metadata(model):
    built = build(str(model), "linux-x86-64", runtime="tflite", recipe="fp32", output=model.parent / "board.edgepack")
    with BundleReader(built.bundle) as reader:
        assert read_metadata(reader.read(built.manifest.model)) == (None, {})


def test_files_of_the_sources_metadata_are_not_lost_in_silence(model, tmp_path):
    _, raw, _ = made(model, "fp32", labels=str(tmp_path / "labels.txt"))
    model.write_bytes(raw)
    built, raw, _ = made(model, "fp16")
    assert "metadata-files" in [finding.code for finding in built.manifest.findings]
    assert read_metadata(raw)[1] == {}


def test_labels_of_another_number_than_the_output_has(model, tmp_path):
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    with pytest.raises(UsageError, match="2 labels, but the output 'probabilities' has 5 values"):
        made(model, labels=str(tmp_path / "labels.txt"))


def test_labels_with_an_empty_line(tmp_path):
    (tmp_path / "labels.txt").write_text("one\n\nthree\n")
    with pytest.raises(UsageError, match="line 2 of the labels is empty"):
        read_labels(str(tmp_path / "labels.txt"), [TensorSpec("out", "float32", [1, 3])])


def test_labels_for_one_of_several_outputs(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("a\nb\n")
    outputs = [TensorSpec("boxes", "float32", [1, 9, 4]), TensorSpec("classes", "float32", [1, 2])]
    assert read_labels(f"classes={path}", outputs).words == ("a", "b")
    with pytest.raises(UsageError, match="--labels names none"):
        read_labels(str(path), outputs)


def test_labels_file_that_is_not_there(model):
    with pytest.raises(UsageError) as error:
        made(model, labels="nowhere.txt")
    assert error.value.code == "labels"


def test_labels_for_a_target_that_takes_none(model, tmp_path):
    with pytest.raises(UsageError) as error:
        made(model, target="cortex-m4", labels=str(tmp_path / "labels.txt"))
    assert error.value.code == "target-option"


def test_oldest_runtime_stands_in_the_bundle(model):
    built, _, note = made(model, "fp32")
    assert built.manifest.runtime.min_version == RELEASES[0]
    assert f"com.google.ai.edge.litert:litert:{RELEASES[0]}" in note
    newer, _, note = made(model, "fp32", min_runtime="1.4.0")
    assert newer.manifest.runtime.min_version == "1.4.0"
    assert "litert:1.4.0" in note


def test_operator_newer_than_the_runtime_asked_for(model):
    graph = parse_model(model.read_bytes())
    softmax = next(code for code in graph.operatorCodes if code.builtinCode == 25)
    softmax.version = 4
    assert oldest_for(operator_versions(graph)) == "2.1.6"
    model.write_bytes(to_bytes(graph))
    with pytest.raises(ConvertError, match=r"SOFTMAX version 4 \(it has version 3\)") as error:
        made(model, "fp32", min_runtime="1.4.0")
    assert error.value.code == "min-runtime"
    assert "--min-runtime 2.1.6" in error.value.fix


@pytest.mark.parametrize("version", ["0.9", "new"])
def test_runtime_version_that_nobody_knows(model, version):
    with pytest.raises(UsageError) as error:
        made(model, "fp32", min_runtime=version)
    assert error.value.code == "min-runtime"


def test_releases_only_gain_operators():
    everything = {"TRANSPOSE": 9, "FULLY_CONNECTED": 14, "STABLEHLO_CASE": 1}
    assert lacking(everything, "1.0.1") == {"TRANSPOSE": (9, 6), "FULLY_CONNECTED": (14, 13), "STABLEHLO_CASE": (1, 0)}
    assert lacking(everything, "1.1.9").keys() == {"TRANSPOSE", "FULLY_CONNECTED"}
    assert lacking(everything, "99.0") == {}


def test_damaged_metadata(model):
    raw = encode({"name": "net", "description": "words"}, "ModelMetadata", SCHEMA, b"M001")
    assert decode(raw, "ModelMetadata", SCHEMA, b"M001") == {"name": "net", "description": "words"}
    with pytest.raises(ConvertError) as error:
        decode(raw[:24], "ModelMetadata", SCHEMA, b"M001")
    assert error.value.code == "corrupt-metadata"
    with pytest.raises(ConvertError, match="no ModelMetadata"):
        decode(b"\0" * 32, "ModelMetadata", SCHEMA, b"M001")


def test_labels_are_an_archive_that_any_unzip_opens(model, tmp_path):
    _, raw, _ = made(model, "fp32", labels=str(tmp_path / "labels.txt"))
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.testzip() is None
