"""A comparison over a real SSH server loses nothing when the link or the host is lost."""

from __future__ import annotations

import json

from tests.device.road import agents, digest_of, finish, read_until, wait_for

QUICK = ("--rounds", "6", "--seconds", "0.3", "--threads", "1")
SIDES = ("verdict", "ratio", "rounds", "a", "b")


def kept(device):
    """The results that the device has not been told to forget."""
    return [path.name for path in (device.root / "results").glob("*")]


def gone(device):
    return not agents(device.root) and not agents(device.root, child=True)


def test_link_cut_in_mid_compare_and_the_comparison_arrives_by_itself(board, edgepack, bundle):
    device = board("kitchen")
    process = edgepack.start("compare", bundle, bundle, "--device", "kitchen", *QUICK, "--json")
    read_until(process, "round 2 of 6")
    device.cut_sessions()
    code, out, talk = finish(process)
    assert code == 0, talk
    assert "the link was lost: connecting again for the result" in talk
    told = json.loads(out)
    assert told["a"]["bundle"] == digest_of(bundle)
    again = edgepack.json("results", "comparisons", told["comparison"])
    assert {key: again[key] for key in SIDES} == {key: told[key] for key in SIDES}
    assert kept(device) == []


def test_host_killed_in_mid_compare_and_the_comparison_is_collected(board, edgepack, bundle):
    device = board("kitchen")
    process = edgepack.start("compare", bundle, bundle, "--device", "kitchen", *QUICK)
    read_until(process, "round 2 of 6")
    process.kill()
    finish(process)
    wait_for(lambda: kept(device) and gone(device), "the result on the device")
    fetched = edgepack.json("results", "collect", "kitchen")
    assert (fetched["runs"], len(fetched["comparisons"])) == ([], 1)
    shown = edgepack.json("results", "comparisons", fetched["comparisons"][0])
    assert (shown["device"], shown["rounds"], shown["b"]["bundle"]) == ("kitchen", 6, digest_of(bundle))
    assert edgepack.json("results", "collect", "kitchen") == {"runs": [], "comparisons": []}
    assert kept(device) == []
