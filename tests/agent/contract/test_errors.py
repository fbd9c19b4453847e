"""Errors cross the wire as data and arrive as the same class, with all that helps."""

import inspect
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract import errors
from agent.contract.errors import (
    DeviceError,
    EdgepackError,
    TransientDeviceError,
    UsageError,
    from_wire,
    nearest,
    to_wire,
    unknown_name,
)

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, EdgepackError) and kind.__module__ == errors.__name__
]
PARTS = ("what", "where", "expected", "fix", "code")


def parts(error):
    return {name: getattr(error, name) for name in PARTS}


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.tuples(*[st.text(max_size=50)] * 5))
def test_arrives_as_the_same_class_with_the_same_words(kind, texts):
    sent = kind(texts[0], **dict(zip(PARTS[1:], texts[1:], strict=True)))
    got = from_wire(json.loads(json.dumps(to_wire(sent))))
    assert type(got) is kind
    assert parts(got) == parts(sent)
    assert (got.exit_code, got.retry) == (sent.exit_code, sent.retry)


@pytest.mark.parametrize("kind", KINDS)
def test_survives_pickling(kind):
    sent = kind("what", where="where", fix="fix", code="code")
    got = pickle.loads(pickle.dumps(sent))  # noqa: S301 - our own bytes
    assert type(got) is kind
    assert parts(got) == parts(sent)


def test_exit_codes_are_those_of_the_design():
    codes = {kind.__name__: kind.exit_code for kind in KINDS}
    assert codes == {
        "EdgepackError": 1,
        "UsageError": 2,
        "ContractError": 2,
        "ConvertError": 3,
        "DeviceError": 4,
        "TransientDeviceError": 5,
        "BudgetError": 6,
        "IntegrityError": 7,
    }
    assert [kind for kind in KINDS if kind.retry] == [TransientDeviceError]


def test_class_of_one_s_own_travels_as_its_ancestor():
    class DiskError(DeviceError):
        pass

    assert type(from_wire(to_wire(DiskError("full")))) is DeviceError


@pytest.mark.parametrize("document", [None, [], "x", {}, {"kind": "Exception"}, {"kind": "os.system", "what": "x"}])
def test_document_that_is_no_error_becomes_one_that_shows_it(document):
    error = from_wire(document)
    assert type(error) is DeviceError
    assert repr(document) in str(error)


@given(st.dictionaries(st.sampled_from([*PARTS, "kind"]), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_no_document_breaks_the_reader(document):
    assert isinstance(from_wire(document), EdgepackError)


def test_message_has_a_line_for_each_part_that_is_known():
    error = UsageError("no such file", where="a.npz", fix="one\ntwo")
    assert str(error) == "no such file\n  where: a.npz\n  what to do: one\n    two"


def test_unknown_name_lists_the_known_and_the_nearest():
    error = unknown_name("verb", "benhc", ["hello", "bench"])
    assert error.what == "unknown verb 'benhc' (did you mean 'bench'?)"
    assert error.expected == "one of: bench, hello"
    assert unknown_name("verb", "x", []).expected == "one of: none is known"


def test_nearest_says_nothing_of_names_unlike_all():
    assert nearest("zzzz", ["hello", "bench"]) is None
