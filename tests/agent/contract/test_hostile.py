"""Whatever comes from a bundle or a device ends in a value or in one of our errors: nothing else, nowhere else."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.contract import codec, signatures
from agent.contract.archive import BundleReader
from agent.contract.errors import EdgepackError
from agent.contract.manifest import Manifest, parse_manifest
from agent.contract.report import Report
from packager.device.answers import Answer, decoded
from packager.device.transport import Completed
from tests.agent.bundles import manifest, write_bundle

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def ours(call, *arguments):
    """Runs it; only our own errors may come out."""
    try:
        return call(*arguments)
    except EdgepackError as error:
        told = str(error)
    assert told
    return None


@QUICK
@given(st.binary(max_size=200))
def test_bytes_as_manifest(raw):
    ours(parse_manifest, raw)


@QUICK
@given(JSON, st.sampled_from(sorted(codec.encode(manifest()))))
def test_a_manifest_with_one_wrong_value(value, key):
    ours(codec.decode, Manifest, {**codec.encode(manifest()), key: value})


@QUICK
@given(JSON)
def test_any_json_as_a_report(value):
    ours(decoded, Report, value, "device")


@QUICK
@given(st.lists(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), max_size=5))
def test_any_lines_as_the_agents_answer(lines):
    shown = []

    def talk():
        answer = Answer(shown.append)
        for line in lines:
            answer.line(line)
        return answer.value(Completed(0, b"", b"\x1b[2J"), "device")

    ours(talk)
    assert all(text.isprintable() or "\n" in text for text in shown)


def test_an_answer_nested_too_deep():
    for depth in (300, 900, 100_000):
        answer = Answer(lambda _: None)
        line = b'{"type": "result", "result": ' + b"[" * depth + b"]" * depth + b"}"
        ours(lambda line=line, answer=answer: answer.line(line))
        ours(answer.value, Completed(0, b"", b""), "device")
        ours(codec.loads, Manifest, b"[" * depth + b"]" * depth)


def test_a_line_whose_type_is_no_text():  # found by atheris
    for line in (b'{"type": {}}', b'{"type": [1]}', b"{}", b"[]", b"1"):
        assert ours(Answer(lambda _: None).line, line) is None


@QUICK
@given(st.binary(max_size=400))
def test_bytes_as_a_signature(raw):
    ours(signatures.parse, raw, "there")


@QUICK
@given(st.data())
def test_a_bundle_with_bytes_changed_is_refused_or_the_same(tmp_path, data):
    path = tmp_path / "small.edgepack"
    digest = write_bundle(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)

    def whole():
        with BundleReader(path) as reader:
            reader.verify()
            return reader.digest

    # What may change unseen is what the zip says of dates and systems: the manifest and every file stay what they were.
    assert ours(whole) in {None, digest}
