"""PyTorch gives a join's parts one scale: where that would lose the smallest, the join stays in float."""

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from packager.compress.quantize import torch_dynamic, torch_static  # noqa: E402
from packager.compress.quantize.torch_joins import mixed_joins  # noqa: E402
from packager.recipe import NAMED  # noqa: E402
from tests.packager.compress.nets import Detector  # noqa: E402


def feeds(count=8):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 3, 12, 12, generator=generator),) for _ in range(count)]


def test_spreads_of_the_whole_and_of_the_least_part():
    graph = torch.fx.symbolic_trace(Detector(1000).eval())
    ((name, (whole, least)),) = mixed_joins(graph, feeds()).items()
    assert name.startswith("cat")
    assert 100 < whole / least < 10000
    assert mixed_joins(torch.fx.symbolic_trace(Detector(1).eval()), feeds()) == {}


@pytest.mark.parametrize(("large", "told"), [(1, []), (1000, ["float-join"])])
def test_the_smallest_part_survives_in_int8(large, told):
    torch_dynamic.use_engine("qnnpack")
    made = torch_static.quantize_static(Detector(large).eval(), feeds()[0], feeds(), NAMED["int8"], "qnnpack")
    assert made.how == "graph"
    assert [one.code for one in made.findings] == told
    with torch.no_grad():
        scores, wanted = made.module(*feeds()[0])[:, 4:], Detector(large)(*feeds()[0])[:, 4:]
    assert scores.std() > 0
    assert float((scores - wanted).norm() / wanted.norm()) < 0.1
