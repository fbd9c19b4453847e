"""The road over links as bad as they come: whole, cut after so many bytes, cut for so many seconds."""

import os
import threading

import pytest

from tests.device.bench import links
from tests.device.road import half_written, with_file

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(links.why_not()), reason=links.why_not()),
    pytest.mark.timeout(900),
]
SIZE = 3 << 20


@pytest.fixture
def heavy_bundle(bundle, tmp_path):
    return with_file(bundle, tmp_path / "heavy.edgepack", os.urandom(SIZE))


@pytest.fixture
def far(linked, client, edgepack):
    """Starts and registers the device `far` behind a link; gives the link, and edgepack's folder there."""

    def start(quality=None):
        device, link = linked(quality)
        client.trust(device)
        edgepack("devices", "add", "far", device.address)
        edgepack.within = link.within
        return link, device.home / ".edgepack"

    return start


@pytest.mark.parametrize("quality", sorted(links.PROFILES))
def test_a_bundle_arrives_over(far, edgepack, bundle, quality):
    link, _ = far(quality)
    (pushed,) = edgepack.json("push", bundle, "far")["pushed"]
    assert [row["digest"] for row in edgepack.json("devices", "list-bundles", "far")] == [pushed["bundle"]]
    assert link.carried > pushed["bytes_sent"]


@pytest.mark.long
def test_cut_after_bytes_loses_nothing_that_arrived(far, edgepack, heavy_bundle):
    link, root = far(links.Quality(rate_mbit=40))
    assert edgepack.json("devices", "list-bundles", "far") == []  # the agent is there now
    link.cut_after(SIZE // 2)
    told = edgepack("push", heavy_bundle, "far", code=5).stderr  # given up; worth another try
    assert not link.up
    assert "going on from what has arrived" in told
    assert "the link was lost" in told.splitlines()[-3]
    assert half_written(root) == []
    link.restore()
    (pushed,) = edgepack.json("push", heavy_bundle, "far")["pushed"]
    assert pushed["already_there"] is False
    assert pushed["bytes_sent"] < SIZE - SIZE // 8  # it went on from where it was cut
    assert [row["digest"] for row in edgepack.json("devices", "list-bundles", "far")] == [pushed["bundle"]]


def test_cut_for_seconds_is_waited_out(far, edgepack, heavy_bundle):
    link, _ = far(links.Quality(rate_mbit=40))
    assert edgepack.json("devices", "list-bundles", "far") == []
    link.cut_after(SIZE // 2, seconds=2)
    (pushed,) = edgepack.json("push", heavy_bundle, "far")["pushed"]
    assert pushed["bytes_sent"] >= SIZE
    assert link.up


def test_cut_for_seconds_before_the_connection(far, edgepack, bundle):
    link, _ = far()
    link.cut()
    timer = threading.Timer(2, link.restore)
    timer.start()
    assert edgepack.json("push", bundle, "far")["pushed"][0]["already_there"] is False
    timer.join()
