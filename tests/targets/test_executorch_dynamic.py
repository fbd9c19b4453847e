"""ExecuTorch's dynamic INT8: LSTM, GRU and Linear; convolutions stay float, and the rest stays on XNNPACK."""

import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("executorch", reason="needs the executorch extra")
pytestmark = [pytest.mark.executorch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError  # noqa: E402 - after the skip
from agent.contract.pte import read_pte  # noqa: E402
from packager import pipeline  # noqa: E402

NETS = Path(__file__).parent / "nets.py"


def build(tmp_path, factory, recipe="int8-dynamic", **more):
    settings = {"runtime": "executorch", "recipe": recipe, "output": tmp_path / "net.edgepack"}
    return pipeline.build(f"{NETS}:{factory}", "linux-arm64", **settings, **more)


def told(built, code):
    return next(finding.message for finding in built.manifest.findings if finding.code == code)


def test_lstm_and_gru_are_quantised_as_matrix_products():
    """Up to the lowering, which takes ExecuTorch a minute for the steps written out."""
    from packager import executorch_lower, torch_models
    from packager.executorch_quantizer import tell_dynamic
    from packager.recipe import NAMED
    from packager.torch_program import Program

    made, recipe = torch_models.call_factory(f"{NETS}:few_steps"), NAMED["int8-dynamic"]
    program = Program(made.module, made.examples, (), "torch")
    exported = executorch_lower.export(program)
    found = executorch_lower.quantise_dynamic(exported, program, recipe)
    measured = sum("choose_qparams" in str(node.target) for node in found.graph.nodes)
    assert measured == 2 * (1 + 2) + 1  # of each: what all steps read, and a state per step; and the head
    outputs = [net(*made.examples)["score"] for net in (found.module(), made.module)]
    assert torch.allclose(*outputs, atol=0.05)
    (finding,) = tell_dynamic(exported, recipe, 1000, 270)
    assert finding.message == "INT8 weights in 1 gru, 1 linear, 1 lstm: 1000 -> 270 bytes (27%)"


def test_convolutions_stay_float_and_a_pooling_stays_on_xnnpack(tmp_path):
    built = build(tmp_path, "pooled")
    text = told(built, "float-convolutions")
    assert text.startswith("1 convolutions stay in float, 63% of the multiply-adds and 1% of the weights")
    with zipfile.ZipFile(tmp_path / "net.edgepack") as bundle:
        assert read_pte(bundle.read("model/model.pte")).portable == {}
    assert built.manifest.facts["int8_share"]["macs"] == pytest.approx(0.37, abs=0.01)


def test_a_network_of_convolutions_alone_is_refused(tmp_path):
    code = tmp_path / "net.py"
    code.write_text("import torch\ndef net(): return torch.nn.Conv2d(3, 3, 1).eval(), (torch.ones(1, 3, 4, 4),)\n")
    with pytest.raises(ConvertError) as caught:
        pipeline.build(f"{code}:net", "linux-arm64", runtime="executorch", recipe="int8-dynamic")
    assert caught.value.code == "nothing-to-quantise"


def test_whole_numbers_stay_whole(tmp_path):
    """XNNPACK's own quantiser turned `cumsum(...) + 1` into floats, and no such network could be quantised."""
    built = build(tmp_path, "counted")
    assert "host-parity" not in [finding.code for finding in built.manifest.findings]


def test_learned_ranges_of_residual_blocks(tmp_path):
    """A dequantise shared by a block and the sum behind it made partitions that depend on each other."""
    built = build(tmp_path, "inverted_and_trained", "int8")
    assert "learned-ranges" in [finding.code for finding in built.manifest.findings]
