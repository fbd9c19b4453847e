"""The page: one file, no network, everything with its doubt, and readable in a real browser."""

import re

import pytest

from agent.contract.errors import UsageError
from agent.contract.finding import Finding
from agent.contract.report import OutputParity, Parity
from packager.results.page import charts
from packager.results.page.write import page, repeat, write_page
from packager.results.store import Stored
from tests.packager.results import browser
from tests.packager.results.reports import EMULATED, report, scored

EVIL = '<img src=x onerror="alert(1)">'


def stored(run, **changes):
    return Stored(run, 1.7e9 + run, "pi@kitchen", report(f"job-{run}", 1_000_000 + 50_000 * run, **changes))


@pytest.fixture(scope="module")
def runs():
    failed = Parity("fail", 4, [OutputParity("scores", 0.5, 3.0, 0.25, "fail", "one band is dead")])
    return [
        stored(1, accuracy=scored(), recipe="fp32", model_bytes=4000),
        stored(2, accuracy=scored(0.88), parity=failed),
        stored(3, emulation=EMULATED),
        stored(4, findings=[Finding("evil", "warning", EVIL, EVIL)], name=EVIL, parity=None),
        stored(5, n=5),
        stored(6, rounds=0),
    ]


def test_numbers_carry_units_intervals_and_findings(runs):
    text = page(runs)
    assert "Latency in ms" in text
    assert "Latency in instructions, emulated cortex-a76" in text
    assert "the device is busy" in text
    assert "stop the other work" in text
    assert re.search(r"1\.1\d+ to 1\.1\d+", text), "the interval of the median"
    assert "0.9000 [0.8600 to 0.9400]" in text
    assert "on the host" in text
    assert "one band is dead" in text
    assert "Parity was not checked" in text
    assert "sha256:" + "a" * 64 in text


def test_instructions_and_milliseconds_share_no_plot(runs):
    plots = re.findall(r"<svg.*?</svg>", page(runs), re.DOTALL)
    assert plots
    assert not [plot for plot in plots if re.search(r">(p50, )?ms<", plot) and "instructions" in plot]


def test_every_plot_has_a_name_and_a_table(runs):
    text = page(runs)
    plots = len(re.findall("<svg ", text))
    assert plots >= 10
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]+"', text)) == plots
    assert len(re.findall("As a table", text)) == plots


def test_nothing_comes_from_elsewhere(runs):
    text = page(runs)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", text.replace("&lt;", ""))
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_what_a_device_says_is_escaped(runs):
    text = page(runs)
    assert EVIL not in text
    assert "&lt;img src=x" in text


def test_the_command_repeats_the_run(runs):
    assert repeat(runs[1]) == "edgepack bench tiny-raspberry-pi-5.edgepack pi@kitchen --threads 1 --rounds 3 --runs 360"


def test_the_front_is_what_nothing_beats():
    assert charts.front([(1, 5), (2, 6), (3, 4), (1, 5), (2, 5)]) == {0, 1, 3}


def test_a_page_without_runs(tmp_path):
    with pytest.raises(UsageError, match="no runs"):
        page([])


def test_a_page_that_cannot_be_written(runs, tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        write_page(runs, tmp_path / "none" / "p.html")


@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desk-light", "phone-dark"])
def test_in_a_browser(runs, tmp_path, width, dark):
    path = tmp_path / "page.html"
    assert write_page(runs, path) == path.stat().st_size
    told = browser.told(tmp_path, path, width=width, dark=dark)
    assert told["errors"] == []
    assert told["requests"] == 0
    assert told["dark"] is dark
    assert told["page"] <= told["width"], "nothing is wider than the screen"
    assert told["opened"] <= told["width"], "not even with everything open"
    assert told["contrast"] >= 4.5, told["worst"]
    assert told["plots"] == told["named"] == told["tables"]
    assert told["order"] == ["1", "2", "4", "5", "6"], "sorted by the median; what has none comes last"
