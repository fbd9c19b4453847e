"""The page: one file, no network, everything with its doubt, and readable in a real browser."""

import dataclasses
import re

import pytest

from agent.contract.errors import UsageError
from agent.contract.finding import Finding
from agent.contract.protocol import Layer, Profile, Protocol
from agent.contract.report import OutputParity, Parity, ProbeReading, Window
from packager.results.page import charts
from packager.results.page.repeat import repeat
from packager.results.page.write import page, write_page
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
        with_time(7),
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
    assert repeat(runs[2]) == "edgepack bench tiny-raspberry-pi-5.edgepack pi@kitchen --threads 1 --rounds 3 --runs 360"


def test_the_front_is_what_nothing_beats():
    assert charts.front([(1, 5), (2, 6), (3, 4), (1, 5), (2, 5)]) == {0, 1, 3}


def test_names_of_points_that_coincide_lie_under_one_another():
    points = [
        ("one net", 0.19, 0.17, 1.0),
        ("two net", 0.19, 0.17, 1.0),
        ("three net", 0.1901, 0.17, 1.0),
        ("far", 0.02, 0.0, 1),
    ]
    drawn = charts.pareto(points, ("ms", "MB"), "size", low_is_better=True)
    heights = {name: float(at) for at, name in re.findall(r'y="([\d.]+)" text-anchor="(?:end|start)">(\w+)', drawn)}
    near = sorted(heights[name] for name in ("one", "two", "three"))
    assert near[1] - near[0] >= 10
    assert near[2] - near[1] >= 10


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
    assert told["order"] == ["7", "1", "2", "4", "5", "6"], "sorted by the median; what has none comes last"


def with_time(run):
    """A sustained run of a board that heats up, with layers."""
    layers = [
        Layer(f"conv{k}", "Conv", "CPUExecutionProvider", 1000.0 * (k + 1), False, [f"node{k}"]) for k in range(45)
    ]
    layers.append(Layer("ReorderOutput", "ReorderOutput", "CPUExecutionProvider", 30_000.0, True))
    one = report(f"job-{run}", rounds=1, n=600)
    windows = [
        Window(k * 10**9, 10**9, 20, 10, ProbeReading("ondemand", [2400.0 - 10 * k], 50.0 + k / 2, k > 50))
        for k in range(60)
    ]
    rounds = [dataclasses.replace(one.rounds[0], windows=windows)]
    protocol = Protocol(3.0, None, 3, 0.5, 5, sustained_minutes=1.0, provider="cpu", threads_tried={"1": 1000000})
    profile = Profile(layers, 50, 1e6)
    return Stored(
        run,
        1.7e9,
        "pi@kitchen",
        dataclasses.replace(one, rounds=rounds, protocol=protocol, profile=profile, accuracy=scored()),
    )


def test_sustained_course_and_layers_with_their_tables():
    text = page([with_time(9)])
    assert "Sustained, 60 windows" in text
    assert re.search(r"2[ \u202f]?400 to 1[ \u202f]?810 MHz; 50 to 79\.5 °C; throttled in 9 windows", text)
    assert text.count("<th>conv") == 45, "every layer stands in the table"
    assert "5 quicker ones stand in the table only" in text or "6 quicker ones stand in the table only" in text
    assert re.search(r"Time of each layer; 2\.8 % is conversion|Time of each layer; 2\.8% is conversion", text)
    assert "sustained for 1 min in one process" in text
    plots = len(re.findall("<svg ", text))
    assert len(re.findall("As a table", text)) == plots


def test_the_command_repeats_everything_that_was_asked_for():
    asked = repeat(with_time(9))
    assert asked == (
        "edgepack bench tiny-raspberry-pi-5.edgepack pi@kitchen --threads 1 --provider cpu --sustained 1 --profile"
        " --eval DATA.npz --metric top1"
    )
    protocol = Protocol(2.0, None, 4, 0.5, 5, batch=8, streams=2, lock_clocks=True)
    assert repeat(stored(3, protocol=protocol)).endswith(
        "--threads 1 --batch 8 --streams 2 --lock-clocks --rounds 4 --seconds 2"
    )


@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_printed_with_every_table_open(runs, tmp_path):
    """On paper nothing can be opened: what is folded on the screen stands there, too."""
    path = tmp_path / "page.html"
    write_page([with_time(9), *runs], path)
    text = path.read_text(encoding="utf-8")
    without = {"script": ('addEventListener("beforeprint"', 'addEventListener("never"')}
    without["both"] = without["script"]
    pages = {}
    for name in ("page", "script", "both"):
        made = text.replace(*without[name]) if name in without else text
        made = made.replace("details::details-content", "none") if name == "both" else made
        (tmp_path / f"{name}.html").write_text(made, encoding="utf-8")
        printed = tmp_path / f"{name}.pdf"
        browser.chromium(tmp_path, tmp_path / f"{name}.html", f"--print-to-pdf={printed}", "--no-pdf-header-footer")
        pages[name] = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert pages["page"] == pages["script"] > pages["both"], (
        "opened by the style sheet, and by the script in older browsers"
    )


def test_a_hundred_runs_of_many_layers_stay_below_two_megabytes():
    one = with_time(1)
    layers = [dataclasses.replace(one.report.profile.layers[0], name=f"/block.{k}/Conv", time_ns=k) for k in range(500)]
    profile = dataclasses.replace(one.report.profile, layers=layers)
    many = [
        dataclasses.replace(one, run=k, report=dataclasses.replace(one.report, profile=profile)) for k in range(100)
    ]
    text = page(many)
    assert len(text.encode()) < 2_000_000
    assert "486 quicker layers" in text
