"""Tracing and scripting, decided by what both compute."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError  # noqa: E402 - after the skip
from packager import torch_models, torch_trace  # noqa: E402
from packager.lite_file import freeze, operators, write_lite  # noqa: E402
from packager.torch_program import Program  # noqa: E402

NETS = Path(__file__).parents[1] / "targets" / "nets.py"


def program(factory):
    made = torch_models.call_factory(f"{NETS}:{factory}")
    return Program(module=made.module, examples=made.examples, inputs=(), kind="torch")


def feeds(one):
    generator = torch.Generator().manual_seed(1)
    return [one.examples, *((torch.randn(one.examples[0].shape, generator=generator),) for _ in range(6))]


def scripted(factory):
    one = program(factory)
    return torch_trace.to_script(one, one.module, feeds(one))


def test_a_plain_module_is_traced():
    found = scripted("clamped")
    assert (found.how, found.findings) == ("trace", ())


def test_control_flow_is_scripted_and_the_line_is_told():
    found = scripted("branch")
    assert found.how == "script"
    assert "nets.py:" in found.findings[0].message
    assert torch.equal(found.module(-torch.ones(1, 8)), torch.ones(1, 8))


def test_control_flow_that_cannot_be_scripted_is_refused_with_the_line_and_the_way_out():
    with pytest.raises(ConvertError) as caught:
        scripted("unscriptable")
    assert "nets.py:" in caught.value.where
    assert "torch.where" in caught.value.fix
    assert caught.value.exit_code == 3


def test_an_output_that_is_no_tensor_is_refused():
    one = Program(module=torch.nn.Identity(), examples=(torch.ones(1),), inputs=(), kind="torch")
    module = torch_models.import_named(str(NETS), "Texts")()
    with pytest.raises(ConvertError, match="returns str"):
        torch_trace.to_script(one, module, [one.examples])


@pytest.mark.parametrize("bytecode", [None, 7, 4])
def test_the_bytecode_is_lowered_and_computes_the_same(tmp_path, bytecode):
    from torch.jit.mobile import _get_model_bytecode_version, _load_for_lite_interpreter

    one = program("clamped")
    found = scripted("clamped")
    path = tmp_path / "model.ptl"
    assert write_lite(freeze(found.module), path, bytecode) == (bytecode or 8)
    assert _get_model_bytecode_version(str(path)) == (bytecode or 8)
    with torch.no_grad():
        assert torch.allclose(
            _load_for_lite_interpreter(str(path))(*one.examples), one.module(*one.examples), atol=1e-5
        )


@pytest.mark.parametrize("bytecode", [3, 9])
def test_a_bytecode_out_of_reach_is_refused(tmp_path, bytecode):
    with pytest.raises(ConvertError, match=f"bytecode version {bytecode}") as caught:
        write_lite(freeze(scripted("clamped").module), tmp_path / "model.ptl", bytecode)
    assert caught.value.expected.startswith("4 to 8")


def test_the_file_is_the_same_each_time_and_names_no_folder(tmp_path):
    paths = []
    for name in ("one", "two"):
        scripted("recurrent")  # moves PyTorch's counter of class names on
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "model.ptl")
        write_lite(freeze(scripted("clamped").module), paths[-1])
    raw = paths[0].read_bytes()
    assert raw == paths[1].read_bytes()
    assert b"nets.py" not in raw
    assert "aten::_convolution" in operators(paths[0]) or "aten::conv2d" in operators(paths[0])


@pytest.mark.parametrize("bytecode", [None, 5])
def test_the_x86_engine_s_weights_are_in_the_file_once(tmp_path, bytecode):
    import zipfile

    from packager.compress.quantize import torch_static
    from packager.recipe import NAMED
    from packager.torch_compare import outputs_of

    model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 8)).eval()
    feeds_ = [(torch.randn(2, 64, generator=torch.Generator().manual_seed(1)),)]
    made = torch_static.quantize_static(model, feeds_[0], feeds_, NAMED["int8"], "x86").module
    path = tmp_path / "model.ptl"
    write_lite(freeze(torch.jit.trace(made, feeds_[0])), path, bytecode)
    with zipfile.ZipFile(path) as archive:
        stored = [archive.read(name) for name in archive.namelist() if name.endswith(".storage")]
    assert sum(len(data) == 64 * 96 for data in stored) == 1
    from torch.jit.mobile import _load_for_lite_interpreter

    loaded = _load_for_lite_interpreter(str(path))
    assert torch.equal(outputs_of(loaded, feeds_[0])[0], outputs_of(made, feeds_[0])[0])
