"""edgepack build for PyTorch Lite: --bytecode from the command line to the file."""

import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

NETS = Path(__file__).parents[1] / "targets" / "nets.py"
BUILD = (
    "build",
    f"{NETS}:clamped",
    "-t",
    "android-arm64",
    "--runtime",
    "pytorch_lite",
    "-r",
    "fp32",
    "-o",
    "n.edgepack",
)


def test_bytecode_is_lowered_to_what_the_app_takes(edgepack, place):
    from torch.jit.mobile import _get_model_bytecode_version

    done = edgepack(*BUILD, "--bytecode", "5", "--json")
    assert done.status == 0
    assert done.json["steps"][-1]["options"] == {"bytecode": 5}
    with zipfile.ZipFile("n.edgepack") as bundle:
        bundle.extract("model/model.ptl")
    assert _get_model_bytecode_version("model/model.ptl") == 5


@pytest.mark.parametrize(("bytecode", "status"), [("9", 3), ("3", 3), ("five", 2)])
def test_bytecode_out_of_reach(edgepack, place, bytecode, status):
    done = edgepack(*BUILD, "--bytecode", bytecode)
    assert (done.status, done.out) == (status, "")
    assert bytecode in done.err
    assert not list(place.glob("*.edgepack"))


def test_bytecode_of_another_runtime(edgepack, place):
    arguments = [one if one != "pytorch_lite" else "executorch" for one in BUILD]
    done = edgepack(*arguments, "--bytecode", "5")
    assert done.status == 2
    assert "takes no option 'bytecode'" in done.err
