"""The codec is strict: what goes out comes back, and nothing else comes in."""

import dataclasses
import functools
import json
import math
import typing
from typing import Any, Dict, List, Optional, Tuple, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.contract import codec
from agent.contract.errors import ContractError
from agent.contract.facts import DeviceFacts, DoctorReport
from agent.contract.finding import Finding
from agent.contract.job import BenchOptions, CheckOptions, Job
from agent.contract.manifest import Manifest, Preprocessing, Tolerance, manifest_digest, parse_manifest
from agent.contract.report import ProbeReading, Report
from tests.agent.bundles import manifest

# Every document that crosses the wire or lies on a disk. One whose types the strategies below do not know fails here.
DOCUMENTS = [Manifest, Report, DeviceFacts, DoctorReport, Job, BenchOptions, CheckOptions, ProbeReading, Preprocessing]
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
PLAIN = {str: st.text(max_size=5), int: st.integers(), float: finite, bool: st.booleans(), type(None): st.none()}


@functools.cache
def drawn(kind):
    """Values of a type that the codec knows."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {field.name: drawn(hints[field.name]) for field in dataclasses.fields(kind) if field.name != "schema"}
        return st.builds(kind, **fields)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Union:
        return st.one_of([drawn(arg) for arg in args])
    if origin is list:
        return st.lists(drawn(args[0]), max_size=2)
    if origin is tuple:
        return st.lists(drawn(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), drawn(args[1]), max_size=2)
    return json_values if kind is Any else PLAIN[kind]


@pytest.mark.parametrize("kind", DOCUMENTS, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_document_comes_back_as_it_went(kind, data):
    document = data.draw(drawn(kind))
    text = codec.dumps(document)
    again = codec.loads(kind, text)
    assert again == document
    assert codec.dumps(again) == text


@dataclasses.dataclass(frozen=True)
class Inner:
    threads: int
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    runtime: Inner
    flag: bool = False
    sizes: List[Union[int, str]] = dataclasses.field(default_factory=list)
    pair: Tuple[int, ...] = ()
    by_name: Dict[str, Inner] = dataclasses.field(default_factory=dict)
    maybe: Optional[Inner] = None
    anything: Any = None


def whole(**changes):
    return {"name": "a", "runtime": {"threads": 2}, **changes}


def refused(data, kind=Outer):
    with pytest.raises(ContractError) as caught:
        codec.decode(kind, data)
    return caught.value


def test_defaults_fill_what_is_left_out():
    assert codec.decode(Outer, whole()) == Outer(name="a", runtime=Inner(2))


def test_unknown_key_names_the_place_and_the_nearest():
    error = refused(whole(runtime={"threads": 1, "thread": 2}))
    assert error.what == "$.runtime: unknown key 'thread' (did you mean 'threads'?)"
    assert error.code == "unknown-key"
    assert error.exit_code == 2


def test_unknown_key_unlike_any_other_lists_the_known():
    assert "known: share, threads" in refused(whole(runtime={"threads": 1, "qqq": 2})).what


def test_missing_key():
    assert refused({"runtime": {"threads": 1}}).what == "$: missing key 'name'"


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": 1}, "$.name: expected str, got int 1"),
        ({"name": None}, "$.name: expected str, got NoneType None"),
        ({"runtime": [1]}, "$.runtime: expected dict, got list [1]"),
        ({"runtime": {"threads": "4"}}, "$.runtime.threads: expected int, got str '4'"),
        ({"runtime": {"threads": 4.0}}, "$.runtime.threads: expected int, got float 4.0"),
        ({"runtime": {"threads": True}}, "$.runtime.threads: expected int, got bool True"),
        ({"runtime": {"threads": 1, "share": True}}, "$.runtime.share: expected float, got bool True"),
        ({"flag": 1}, "$.flag: expected bool, got int 1"),
        ({"sizes": [1, "n", 2.5]}, "$.sizes[2]: expected one of int, str, got float 2.5"),
        ({"pair": [1, "2"]}, "$.pair[1]: expected int, got str '2'"),
        ({"by_name": {"x": {}}}, "$.by_name.x: missing key 'threads'"),
        ({"maybe": 0}, "$.maybe: expected dict, got int 0"),
    ],
)
def test_wrong_type_names_the_place_and_the_value(changes, place):
    assert refused(whole(**changes)).what == place


def test_whole_number_is_taken_where_a_float_is_wanted():
    value = codec.decode(Inner, {"threads": 1, "share": 2}).share
    assert type(value) is float
    assert value == 2.0


def test_long_value_is_shown_short():
    assert len(refused(whole(flag="x" * 10_000)).what) < 200


@given(json_values)
def test_any_json_at_all_is_read_or_refused_as_a_contract_error(data):
    for kind in DOCUMENTS:
        try:
            codec.decode(kind, data)
        except ContractError:
            continue


@pytest.mark.parametrize("theirs", ["edgepack.job/2", "edgepack.manifest/1", None, 1, "edgepack.job/x", ""])
def test_other_schema_is_refused_and_both_are_named(theirs):
    error = refused({"id": "1", "verb": "hello", "schema": theirs}, Job)
    assert repr(theirs) in error.what
    assert error.expected == "'edgepack.job/1'"
    assert error.code == "schema"


def test_document_without_schema_is_refused():
    assert refused({"id": "1", "verb": "hello"}, Job).code == "schema"


def test_newer_schema_is_told_before_its_unknown_keys():
    error = refused({"schema": "edgepack.job/12", "new_key": 1}, Job)
    assert error.fix.startswith("update edgepack")


def test_older_schema_does_not_ask_to_update():
    assert refused({"schema": "edgepack.job/0"}, Job).fix == ""


@pytest.mark.parametrize("text", ["", "{", "nonsense", b"\xff\xfe", "[" * 100_000])
def test_text_that_is_no_json_names_its_file(text):
    with pytest.raises(ContractError, match="not a JSON document") as caught:
        codec.loads(Job, text, source="job.json")
    assert caught.value.where == "job.json"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_number_that_json_does_not_have_is_not_written(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        codec.dumps(Tolerance(min_cosine=value, max_abs=0.0))


def test_canonical_text_is_sorted_and_ends_a_line():
    text = codec.dumps(Finding("c", "info", "für dich"))
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert "für dich" in text


def test_manifest_s_digest_is_that_of_its_bytes():
    raw = manifest().to_bytes()
    assert parse_manifest(raw) == manifest()
    assert manifest_digest(raw).startswith("sha256:")
    assert manifest_digest(raw) != manifest_digest(manifest(name="other").to_bytes())
