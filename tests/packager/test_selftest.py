"""The self-test for owners of boards, on this machine; and what boards have sent back still reads."""

import json
from pathlib import Path

import pytest

from agent.contract import codec
from agent.contract.errors import DeviceError, UsageError
from agent.contract.facts import DoctorReport
from agent.contract.report import Report
from packager.device.device import Device
from packager.selftest import SCHEMA, selftest

RECORDED = sorted(Path(__file__).parent.joinpath("selftests").glob("*.json"))


def test_the_whole_road_on_this_machine_gives_a_report_per_recipe():
    with Device("local") as device:
        document = selftest(device, runtimes=["onnxruntime"], seconds=0.05)
        left = {row["digest"] for row in device.bundles()}
    assert document["passed"]
    assert [row["recipe"] for row in document["runs"]] == ["fp32", "fp16", "int8-dynamic", "int8"]
    for row in document["runs"]:
        report = codec.decode(Report, row["report"])
        assert report.parity.verdict == "pass"
        assert report.facts.hostname == report.facts.root == ""
        assert row["built"]["digest"] not in left
    text = json.dumps(document)
    assert str(Path.home()) + "/" not in text


def test_a_runtime_that_the_board_lacks_is_refused():
    with Device("local") as device, pytest.raises(DeviceError, match="does not hold tensorrt"):
        selftest(device, runtimes=["tensorrt"])


def test_an_unknown_runtime_is_a_usage_error():
    with Device("local") as device, pytest.raises(UsageError, match="tensorflow"):
        selftest(device, runtimes=["tensorflow"])


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
def test_what_a_board_sent_back_still_reads(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["schema"] == SCHEMA
    assert codec.decode(DoctorReport, document["doctor"]).facts.machine
    reports = [codec.decode(Report, row["report"]) for row in document["runs"] if "report" in row]
    assert reports
    assert all(report.rounds for report in reports)
