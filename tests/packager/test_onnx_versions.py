"""The opset and IR limits of ONNX Runtime releases, checked against the release that is installed here."""

import pytest

from agent.contract.errors import ConvertError
from packager.onnx_versions import NEWEST, OLDEST, limits


def one_node_model(opset, ir_version):
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model.SerializeToString()


def loads(opset, ir_version):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(one_node_model(opset, ir_version), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises several classes for a file that it refuses
        assert "IR version" in str(error) or "opset" in str(error)  # noqa: PT017 - the refusal must be for this
        return False
    return True


def test_the_installed_release_loads_its_limits_and_not_more():
    import onnxruntime

    known = limits(onnxruntime.__version__)
    if not known.known:
        pytest.skip("the installed onnxruntime is newer than the table")
    assert loads(known.opset, known.ir_version)
    assert not loads(known.opset + 1, known.ir_version)
    assert not loads(13, known.ir_version + 1)


@pytest.mark.parametrize(
    ("version", "opset", "ir_version"),
    [
        ("1.10.0", 15, 8),
        ("1.16.3", 19, 9),
        ("1.19.2", 21, 10),
        ("1.23.2", 23, 11),
        ("1.24.4", 25, 13),
        ("1.32.0", 28, 14),
    ],
)
def test_rows_that_were_measured(version, opset, ir_version):
    found = limits(version)
    assert (found.opset, found.ir_version, found.known) == (opset, ir_version, True)
    assert version.rpartition(".")[0] in found.source


def test_no_release_loads_less_than_the_one_before():
    rows = [limits(f"1.{minor}.0") for minor in range(OLDEST[1], NEWEST[1] + 1)]
    assert all(row.known for row in rows)
    assert [row.opset for row in rows] == sorted(row.opset for row in rows)
    assert [row.ir_version for row in rows] == sorted(row.ir_version for row in rows)


def test_every_row_is_a_pair_that_onnx_knows():
    from onnx import helper

    newest = max(row[2] for row in helper.VERSION_TABLE)
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        row = limits(f"1.{minor}.0")
        if row.opset <= newest:
            needed = helper.find_min_ir_version_for([helper.make_opsetid("", row.opset)])
            assert needed <= row.ir_version, minor


@pytest.mark.parametrize("version", ["1.33.0", "1.40", "2.0.0"])
def test_a_newer_release_gets_the_newest_row_and_says_so(version):
    found = limits(version)
    newest = limits(f"{NEWEST[0]}.{NEWEST[1]}.0")
    assert (found.opset, found.ir_version) == (newest.opset, newest.ir_version)
    assert not found.known
    assert version in found.source
    assert "newer" in found.source


@pytest.mark.parametrize("version", ["1.9.0", "0.5.0"])
def test_an_older_release_is_refused(version):
    with pytest.raises(ConvertError, match="older") as caught:
        limits(version)
    assert "1.10" in caught.value.expected


@pytest.mark.parametrize("version", ["", "newest", "1", "1.", "v1.20"])
def test_what_is_no_version_is_refused(version):
    with pytest.raises(ConvertError, match="not a version"):
        limits(version)


def test_a_nightly_build_counts_as_its_release():
    assert limits("1.20.0.dev20241022001").opset == 21
    assert limits("1.23.0rc1").opset == 23
