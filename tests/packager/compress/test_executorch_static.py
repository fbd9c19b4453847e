"""Static INT8 for ExecuTorch before it is lowered: what is measured once, where ranges are taken, what a draft computes."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("executorch", reason="needs the executorch extra")
pytestmark = [pytest.mark.executorch, pytest.mark.filterwarnings("ignore")]
from torch import nn  # noqa: E402 - after the skip

from agent.contract.errors import ConvertError  # noqa: E402
from packager import executorch_lower  # noqa: E402
from packager.compress.quantize import executorch_static as static  # noqa: E402
from packager.compress.quantize.executorch_ranges import watched  # noqa: E402
from packager.recipe import NAMED  # noqa: E402
from packager.torch_program import Program  # noqa: E402
from tests.packager.compress.nets import Detector  # noqa: E402

INT8 = NAMED["int8"]


def net(*, inplace=False):
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=inplace),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU6(inplace=inplace),
        nn.Conv2d(8, 4, 1),
    ).eval()
    with torch.no_grad():
        made[0].weight *= 40  # far beyond what the clamp lets through
    return made


def floats_of(module, shape=(1, 3, 12, 12), count=8):
    generator = torch.Generator().manual_seed(1)
    feeds = [(torch.randn(shape, generator=generator),) for _ in range(count)]
    program = Program(module, feeds[0], (), "torch")
    return static.Floats(executorch_lower.export(program), program, feeds)


@pytest.mark.parametrize("inplace", [False, True])
def test_the_range_of_a_layer_ends_where_the_clamp_behind_it_does(inplace):
    prepared = floats_of(net(inplace=inplace)).prepare(INT8)
    found = watched(prepared)
    names = [name for name in found if "hardtanh" in name]
    assert len(names) == 2
    assert [name for name in found if name.startswith("conv")] == ["conv2d_2"]  # the one without a clamp
    assert [one.seen.high for one in found[names[0]]] == [6.0]


def test_ranges_are_measured_once_for_all_recipes(monkeypatch):
    runs = []
    measure = static.measure

    def counted(prepared, feeds):
        runs.append(len(feeds))
        return measure(prepared, feeds)

    monkeypatch.setattr(static, "measure", counted)
    floats = floats_of(net())
    digests = set()
    clipped = {"method": "percentile", "percentile": 90.0}
    for change in ({}, clipped, {"exclude": ("3",)}, {"scope": "compute"}, {"bias_correction": True}):
        module, _, _ = static.draft(floats, dataclasses.replace(INT8, **{"scope": "all", **change}))
        digests.add(static.digest(module))
    assert runs == [8]
    assert len(digests) == 4  # nothing but convolutions: the narrower scope changes nothing
    static.draft(floats, dataclasses.replace(INT8, equalize=True))
    assert runs == [8, 8]  # other weights, other ranges


def test_a_layer_left_out_stays_as_it_is():
    floats = floats_of(net())
    recipe = dataclasses.replace(INT8, exclude=("3",), bias_correction=True)
    module, _, _ = static.draft(floats, recipe)
    layers = [node for node in module.graph.nodes if "conv2d" in str(node.target)]
    assert [node.args[1].op for node in layers] == ["call_module", "get_attr", "call_module"]
    assert ["corrected" in str(node.args[2].target) for node in layers] == [True, False, True]
    everything = tuple(str(place) for place in range(6))
    with pytest.raises(ConvertError) as caught:
        static.draft(floats, dataclasses.replace(INT8, exclude=everything))
    assert caught.value.code == "nothing-to-quantise"


@pytest.mark.parametrize(("large", "told"), [(1, []), (1000, ["float-join"])])
def test_a_join_keeps_its_smallest_part(large, told):
    floats = floats_of(Detector(large))
    module, _, findings = static.draft(floats, INT8)
    assert [one.code for one in findings] == told
    (feed,) = floats.feeds[0]
    scores, wanted = module(feed)[:, 4:], Detector(large)(feed)[:, 4:]
    assert scores.std() > 0
    assert float((scores - wanted).norm() / wanted.norm()) < 0.1


def test_a_join_in_a_module_left_out_stays_in_float():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = Detector(1), nn.Conv2d(10, 2, 1)

        def forward(self, x):
            return self.last(self.inner(x))

    module, _, _ = static.draft(floats_of(Outer()), dataclasses.replace(INT8, exclude=("inner",), scope="all"))
    (join,) = (node for node in module.graph.nodes if node.target == torch.ops.aten.cat.default)
    assert [one.op for one in join.args[0]] == ["call_function", "call_function"]  # the layers themselves, no rounding


def test_a_draft_computes_what_xnnpack_does_and_is_lowered_once(tmp_path, monkeypatch):
    from executorch.runtime import Runtime

    floats = floats_of(net())
    module, chosen, told = static.draft(floats, INT8)
    assert told == []
    static.write(floats, module, chosen, tmp_path / "first.pte")
    monkeypatch.delattr(executorch_lower, "write")
    static.write(floats, static.draft(floats, INT8)[0], chosen, tmp_path / "again.pte")
    assert (tmp_path / "again.pte").read_bytes() == (tmp_path / "first.pte").read_bytes()
    method = Runtime.get().load_program(tmp_path / "first.pte").load_method("forward")
    output = module.graph.output_node().args[0][0].target
    step = float(module.get_submodule(output).scale)
    off = torch.cat([(method.execute(list(feed))[0] - module(*feed)).flatten() / step for feed in floats.feeds]).abs()
    assert off.max() < 1.01  # the kernels' fixed point rounds a half the other way now and then
    assert (off > 0.5).float().mean() < 0.05
