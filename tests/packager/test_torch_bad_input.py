"""PyTorch models as they come from users, broken: what is said, and that no strange code runs."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from agent.contract.errors import ConvertError, UsageError  # noqa: E402 - after the skip
from packager import pipeline  # noqa: E402
from packager.cli.main import run  # noqa: E402

NETS = Path(__file__).parents[1] / "targets" / "nets.py"
CODE = """
import torch
from torch import nn

def net():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    {loading}
    return model.eval(), (torch.ones(1, 4),)
"""
LOAD = "model.load_state_dict(torch.load({path!r}))"


def build(entry, runtime="pytorch_lite", **more):
    return pipeline.build(entry, "linux-arm64", runtime=runtime, recipe="fp32", **more)


def factory(tmp_path, state):
    """A factory that loads `state` (bytes or a state dict) as users do."""
    path = tmp_path / "weights.pt"
    if isinstance(state, bytes):
        path.write_bytes(state)
    else:
        torch.save(state, str(path))
    code = tmp_path / "net.py"
    code.write_text(CODE.format(loading=LOAD.format(path=str(path))))
    return f"{code}:net"


def weights(**renamed):
    state = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).state_dict()
    return {renamed.get(key, key): value for key, value in state.items()}


def saved_on_cuda(tmp_path):
    """A checkpoint whose storages say cuda:0, as one that was saved on a GPU does."""
    plain = tmp_path / "plain.pt"
    torch.save(weights(), str(plain))
    made = tmp_path / "cuda.pt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(made, "w") as target:
        for item in source.infolist():
            raw = source.read(item)
            if item.filename.endswith("data.pkl"):
                raw = raw.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
                assert b"cuda:0" in raw
            target.writestr(item, raw)
    return made.read_bytes()


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_module_that_cannot_be_traced_gets_the_line_and_the_way_out():
    with pytest.raises(ConvertError) as caught:
        build(f"{NETS}:unscriptable")
    line = next(n for n, text in enumerate(NETS.read_text().splitlines(), 1) if "len({value" in text)
    assert f"nets.py:{line}: if len(" in caught.value.where
    assert 'File "' not in caught.value.what
    assert "torch.where" in caught.value.fix


def test_inputs_of_a_type_torchscript_cannot_take(tmp_path):
    code = tmp_path / "net.py"
    code.write_text("import torch\ndef net(): return torch.nn.Identity().eval(), ('a sentence',)\n")
    with pytest.raises(UsageError) as caught:
        build(f"{code}:net")
    assert caught.value.code == "factory-result"
    assert "example inputs are str" in caught.value.what
    assert "tensor" in caught.value.expected


def test_a_checkpoint_saved_on_cuda(tmp_path):
    with pytest.raises(UsageError) as caught:
        build(factory(tmp_path, saved_on_cuda(tmp_path)))
    assert "map_location='cpu'" in caught.value.fix
    assert "net.py:7" in caught.value.where


@pytest.mark.parametrize(
    ("state", "way_out"),
    [
        ({"0.weight": torch.ones(4, 4)}, "lacks weights"),
        ({**weights(), "1.bias": torch.ones(4)}, "weights that the network lacks"),
        ({f"module.{key}": value for key, value in weights().items()}, "strip the prefix"),
        ({"0.weight": torch.ones(8, 4), "0.bias": torch.ones(8)}, "another size"),
    ],
    ids=["missing-keys", "unexpected-keys", "data-parallel-keys", "wrong-sizes"],
)
def test_state_dict_keys_that_do_not_fit(tmp_path, state, way_out):
    with pytest.raises(UsageError) as caught:
        build(factory(tmp_path, state))
    assert way_out in caught.value.fix
    assert caught.value.code == "factory-failed"


@pytest.mark.parametrize("form", ["in-a-factory", "as-the-model"])
def test_a_weight_file_that_would_execute_code(tmp_path, form):
    ran = tmp_path / "ran"
    if form == "in-a-factory":
        path = tmp_path / "evil.pt"
        torch.save({"0.weight": Payload(ran)}, str(path))
        entry = factory(tmp_path, path.read_bytes())
    else:
        path = tmp_path / "model.pt"
        path.write_bytes(pickle.dumps(Payload(ran)))
        entry = str(path)
    with pytest.raises(UsageError) as caught:
        build(entry)
    assert not ran.exists()
    assert "code" in caught.value.fix


def test_a_factory_that_raises_returns_the_wrong_thing_or_leaves(tmp_path):
    code = tmp_path / "net.py"
    code.write_text("def raises(): raise KeyError('no')\ndef wrong(): return 'a module'\ndef leaves(): exit(3)\n")
    for name, told in (("raises", "raised KeyError"), ("wrong", "returned str"), ("leaves", "SystemExit")):
        with pytest.raises(UsageError, match=told):
            build(f"{code}:{name}")


def test_a_factory_that_prints_to_stdout_and_a_module_in_train_mode(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "net.py"
    code.write_text(
        "import torch\ndef net():\n    print('loading weights')\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout()), (torch.ones(1, 4),)\n"
    )
    status = run(["build", f"{code}:net", "-t", "linux-arm64", "--runtime", "pytorch_lite", "-r", "fp32", "--json"])
    out, err = capfd.readouterr()
    assert status == 0
    assert "loading weights" in err
    assert "train-mode" in [finding["code"] for finding in json.loads(out)["findings"]]
