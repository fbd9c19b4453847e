"""Files that store their weights in halves, without their zeros, or by an older schema become INT8 as any others do."""

import numpy as np
import pytest

from agent.contract.errors import ConvertError
from packager.recipe import load_recipe
from packager.sources.tflite import Tflite
from packager.tflite_constants import unfold_constants
from packager.tflite_lower import check_computed
from packager.tflite_model import operator_counts, parse_model, to_bytes
from packager.tflite_run import run_tflite
from tests.tflite_models import Graph, built, classifier, conv, dense, fb, needs_tflite, samples

pytestmark = needs_tflite


def in_halves(raw):
    """The model with all float constants stored in float16, as TFLite's converters write it."""
    model = parse_model(raw)
    graph, code = model.subgraphs[0], fb.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = fb.BuiltinOperator.DEQUANTIZE
    code.version = 1
    model.operatorCodes.append(code)
    for index, tensor in enumerate(list(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        if data is None or tensor.type != fb.TensorType.FLOAT32:
            continue
        half, op = fb.TensorT(), fb.OperatorT()
        half.name, half.shape, half.type = tensor.name + b"/half", tensor.shape, fb.TensorType.FLOAT16
        half.buffer, tensor.buffer = tensor.buffer, 0
        model.buffers[half.buffer].data = np.frombuffer(
            np.frombuffer(bytes(data), np.float32).astype(np.float16).tobytes(), np.uint8
        )
        graph.tensors.append(half)
        op.opcodeIndex, op.inputs, op.outputs = len(model.operatorCodes) - 1, [len(graph.tensors) - 1], [index]
        graph.operators.insert(0, op)
    return to_bytes(model)


def by_an_older_schema(raw):
    """The model with its operators' numbers in the old field only."""
    model = parse_model(raw)
    for code in model.operatorCodes:
        code.builtinCode = 0
    return to_bytes(model)


def sparse(values):
    """A FULLY_CONNECTED whose weights are stored row by row without their zeros."""
    g = Graph()
    data = g.tensor("image", [1, values.shape[1]])
    out = dense(g, data, "out", values.shape[1], values.shape[0])
    stored = g.tensor("out/sparse", values.shape, values[values != 0])
    rows, columns = fb.DimensionMetadataT(), fb.DimensionMetadataT()
    rows.format, rows.denseSize = fb.DimensionType.DENSE, values.shape[0]
    columns.format = fb.DimensionType.SPARSE_CSR
    segments = np.cumsum([0, *(values != 0).sum(axis=1)])
    for side, numbers in (("arraySegments", segments), ("arrayIndices", np.nonzero(values)[1])):
        vector = fb.Int32VectorT()
        vector.values = [int(one) for one in numbers]
        setattr(columns, side, vector)
        setattr(columns, f"{side}Type", fb.SparseIndexVector.Int32Vector)
    told = fb.SparsityParametersT()
    told.traversalOrder, told.dimMetadata = [0, 1], [rows, columns]
    g.graph.tensors[stored].sparsity = told
    weights = g.tensor("out/dense", values.shape)
    product = g.graph.operators.pop()
    g.op("DENSIFY", [stored], [weights], fb.DensifyOptionsT(), "DensifyOptions")
    product.inputs = [product.inputs[0], weights, product.inputs[2]]
    g.graph.operators.append(product)
    return g.raw([data], [out])


def outputs(raw, path, feeds, name):
    path.write_bytes(raw)
    return np.array([row[name] for row in run_tflite(path, [{"image": one[None]} for one in feeds], ["image"], [name])])


def test_a_quantiser_that_leaves_everything_in_float_is_caught(tmp_path):
    (tmp_path / "net.tflite").write_bytes(classifier())
    source = Tflite().open(str(tmp_path / "net.tflite"), {})
    with pytest.raises(ConvertError) as error:
        check_computed(parse_model(classifier()), source, load_recipe("int8"))
    assert error.value.code == "nothing-to-quantise"
    assert "CONV_2D" in error.value.where


def share(made):
    return made.manifest.facts["int8_share"]


def test_halves_become_the_floats_that_litert_makes_of_them(tmp_path):
    raw = in_halves(classifier())
    model = parse_model(raw)
    assert unfold_constants(model) == operator_counts(parse_model(raw))["DEQUANTIZE"] > 0
    assert operator_counts(model)["DEQUANTIZE"] == 0
    before = outputs(raw, tmp_path / "before.tflite", samples(3), "probabilities")
    assert np.array_equal(before, outputs(to_bytes(model), tmp_path / "after.tflite", samples(3), "probabilities"))


def test_weights_without_their_zeros_get_them_back(tmp_path):
    rng = np.random.default_rng(0)
    raw = sparse(rng.standard_normal((5, 8)).astype("float32") * (rng.random((5, 8)) < 0.4))
    model = parse_model(raw)
    assert unfold_constants(model) == 1
    assert operator_counts(model) == {"FULLY_CONNECTED": 1}
    feeds = rng.standard_normal((4, 8)).astype("float32")
    before = outputs(raw, tmp_path / "before.tflite", feeds, "out")
    assert np.ptp(before) > 0
    assert np.allclose(before, outputs(to_bytes(model), tmp_path / "after.tflite", feeds, "out"), atol=1e-6)


@pytest.mark.parametrize("change", [in_halves, by_an_older_schema])
def test_int8_takes_every_layer_of_such_files(tmp_path, change):
    made = built(tmp_path, change(classifier()))
    assert share(made)["macs"] == share(made)["weights"] == 1
    assert "host-parity" not in [one.code for one in made.manifest.findings]


def test_fp32_leaves_the_file_as_small_as_it_is(tmp_path):
    made = built(tmp_path, in_halves(classifier()), recipe="fp32")
    assert "constants_unfolded" not in str([step.options for step in made.manifest.steps])


def test_weights_that_are_computed_are_refused_in_int8(tmp_path):
    g = Graph()
    image = g.tensor("image", [1, 8, 8, 3])
    out = conv(g, image, "out", [1, 6, 6, 4], [4, 3, 3, 3])
    product = g.graph.operators.pop()
    doubled = g.tensor("out/doubled", [4, 3, 3, 3])
    g.op("ADD", [product.inputs[1], product.inputs[1]], [doubled], fb.AddOptionsT(), "AddOptions")
    product.inputs = [product.inputs[0], doubled, product.inputs[2]]
    g.graph.operators.append(product)
    with pytest.raises(ConvertError) as error:
        built(tmp_path, g.raw([image], [out]))
    assert (error.value.code, error.value.exit_code) == ("nothing-to-quantise", 3)
    assert not list(tmp_path.glob("*.edgepack"))
