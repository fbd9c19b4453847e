"""What stands for packages, so that no test needs the network; and metrics, loaded as edgepack loads them."""

import pytest

from benchmarks.zoo.case import Case
from packager import torch_models
from packager.accuracy.metric import Metric

NOUNS = """\
  1 the licence stands before the entries
00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived to have its own existence; "an entity"
00001930 03 n 02 ice_cube 0 thing 0 001 @ 00001740 n 0000 | a small cube of frozen water; cools a drink
00002137 03 n 01 mirror 0 001 @ 00001740 n 0000 | polished glass in which one sees oneself
00002452 03 n 01 glass 0 001 @ 00001740 n 0000 | a brittle transparent solid; glass is
"""


@pytest.fixture
def wordnet(tmp_path):
    file = tmp_path / "usr/share/wordnet/data.noun"
    file.parent.mkdir(parents=True)
    file.write_text(NOUNS, encoding="latin1")
    return {"wordnet-base": tmp_path}


@pytest.fixture
def scored(tmp_path):
    """A metric.py of this text, as edgepack loads it."""

    def load(text):
        Case(tmp_path).text("metric.py", text)
        path = str(tmp_path / "metric.py")
        return Metric(name=f"{path}:score", whole=torch_models.import_named(path, "score"))

    return load
