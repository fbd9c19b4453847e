"""Bundles for Jetson, built from the demo model."""

from pathlib import Path

import pytest

import packager
from agent.contract import archive
from agent.contract.errors import ContractError, ConvertError, UsageError
from packager.pipeline import build
from packager.tensorrt import preflight

DEMO = Path(packager.__file__).parent / "demo_data"
MODEL, DATA = str(DEMO / "fashion-cnn.onnx"), str(DEMO / "calibration.npz")
RANGE = "image=1x1x28x28:4x1x28x28:8x1x28x28"


@pytest.fixture
def made(tmp_path):
    def go(recipe, target="jetson-orin", **options):
        calibration = DATA if recipe.startswith("int8") else None
        options = {"calibration": calibration, "output": tmp_path / "m.edgepack", **options}
        return build(MODEL, target, runtime="tensorrt", recipe=recipe, **options)

    return go


def graph(built):
    import onnx

    with archive.BundleReader(built.bundle) as reader:
        assert not [name for name in reader.manifest.files if name.endswith((".plan", ".engine", ".cache"))]
        return onnx.load_from_string(reader.read(reader.manifest.model))


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8", "int8-fp16"])
def test_every_recipe_gives_a_bundle_without_an_engine(made, recipe):
    built = made(recipe)
    model = graph(built)
    assert model.ir_version <= 10
    assert max(entry.version for entry in model.opset_import) <= 20
    manifest = built.manifest
    assert (manifest.runtime.name, manifest.runtime.below_version) == ("tensorrt", "11")
    assert manifest.session_options["strong"] is True
    codes = {finding.code: finding.message for finding in manifest.findings}
    expected = "ok: parsed and built" if preflight.available() else "not-checked"
    assert codes["tensorrt-preflight"].startswith(expected)
    if preflight.available():
        rows = manifest.facts["layers"]
        assert any(row["int8"] for row in rows) == recipe.startswith("int8")
        assert {name for row in rows for name in row["nodes"]} & {node.name for node in model.graph.node}


def test_int8_is_symmetric_with_float_biases_and_nothing_before_the_relu(made):
    import numpy as np
    from onnx import numpy_helper

    model = graph(made("int8"))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    points = [
        values[node.input[2]] for node in model.graph.node if "quantize" in node.op_type.lower() and len(node.input) > 2
    ]
    assert points
    assert all(point.dtype == np.int8 and not point.any() for point in points)
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert values[producers[node.input[1]].input[1]].size > 1
            assert values[node.input[2]].dtype == np.float32
        if node.op_type == "Relu":
            assert producers[node.input[0]].op_type in {"Conv", "Gemm", "Add"}


def test_int8_is_a_third_of_float(made, tmp_path):
    large = made("fp32", output=tmp_path / "a.edgepack").size_bytes
    assert made("int8", output=tmp_path / "b.edgepack").size_bytes < large / 2


def test_jetpack_5_gets_flags_opset_17_and_its_own_major(made):
    built = made("int8-fp16", "jetson-xavier-nx")
    assert max(entry.version for entry in graph(built).opset_import) <= 17
    need, options = built.manifest.runtime, built.manifest.session_options
    assert (need.min_version, need.below_version) == ("8.5", "10")
    assert (options["strong"], options["precision"]) == (False, "int8-fp16")


def test_a_range_becomes_an_optimisation_profile(made):
    built = made("fp16", shapes=(RANGE,))
    assert built.manifest.session_options["profiles"] == [{"image": [[1, 1, 28, 28], [4, 1, 28, 28], [8, 1, 28, 28]]}]
    assert graph(built).graph.input[0].type.tensor_type.shape.dim[0].dim_param


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("image=8x1x28x28:4x1x28x28:1x1x28x28", "out of order"),
        ("image=1x1x28x28:4x1x28x28", "not a range"),
        ("image=1x28x28:4x28x28:8x28x28", "does not fit"),
        ("image=1x3x28x28:4x3x28x28:8x3x28x28", "does not fit"),
        ("picture=1x1x28x28:4x1x28x28:8x1x28x28", "picture"),
    ],
)
def test_bad_ranges_are_told(made, shape, words):
    with pytest.raises(UsageError, match=words):
        made("fp16", shapes=(shape,))


def test_other_runtimes_refuse_a_range(tmp_path):
    with pytest.raises(UsageError, match="not for a range"):
        build(
            MODEL, "jetson-orin", runtime="onnxruntime", recipe="fp32", shapes=(RANGE,), output=tmp_path / "m.edgepack"
        )


def test_unsigned_types_are_refused(made, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('precision = "int8"\nactivation_type = "uint8"\n')
    with pytest.raises(ConvertError, match="no uint8 arithmetic"):
        made(str(recipe), calibration=DATA)


def test_an_operator_that_tensorrt_lacks_stops_the_build_by_name(tmp_path):
    import onnx

    from tests.packager.tensorrt.graphs import model

    onnx.save(model([onnx.helper.make_node("Det", ["x"], ["y"], "determinant")]), str(tmp_path / "det.onnx"))
    with pytest.raises(ConvertError, match="Det 'determinant'") as caught:
        build(
            str(tmp_path / "det.onnx"), "jetson-orin", runtime="tensorrt", recipe="fp32", output=tmp_path / "m.edgepack"
        )
    assert caught.value.code == "tensorrt-rejected"
    assert caught.value.fix
    assert not (tmp_path / "m.edgepack").exists()


def test_an_engine_is_no_model(tmp_path):
    (tmp_path / "m.engine").write_bytes(b"ptrt")
    with pytest.raises(UsageError, match=r"does not read \.engine"):
        build(str(tmp_path / "m.engine"), "jetson-orin", recipe="fp16")


def test_workspace_and_dla_of_the_command_line_reach_the_device(made):
    built = made("fp16", target_options={"workspace_mb": 512, "dla": 1})
    assert built.manifest.session_options["workspace_bytes"] == 512 << 20
    assert built.manifest.session_options["dla"] == 1
    assert built.manifest.session_options["strong"] is False
    assert "dla" not in made("fp16").manifest.session_options


def test_dla_for_int8_or_on_a_board_without_it_is_refused(made):
    with pytest.raises(ConvertError, match="no int8 on DLA") as caught:
        made("int8", target_options={"dla": 0})
    assert caught.value.code == "dla-recipe"
    with pytest.raises(ContractError, match="dla: 0") as refused:
        made("fp16", "jetson-orin-nano", target_options={"dla": 0})
    assert "no DLA" in refused.value.expected
