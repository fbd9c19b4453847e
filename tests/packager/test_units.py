"""Quantities with units: what is read, and what is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.errors import ContractError
from packager.units import BYTES, HERTZ, parse_bytes, parse_hertz


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 B", 1),
        ("8 GiB", 8 * 1024**3),
        ("8GiB", 8 * 1024**3),
        ("1 MiB", 1 << 20),
        ("520 kB", 520_000),
        ("4.2 MB", 4_200_000),
        ("0.5 KiB", 512),
    ],
)
def test_sizes(text, value):
    assert parse_bytes(text) == value


def test_frequencies():
    assert parse_hertz("2.4 GHz") == 2_400_000_000
    assert parse_hertz("168 MHz") == 168_000_000


@given(st.integers(1, 10**9), st.sampled_from(sorted(BYTES)))
def test_every_unit_of_size_multiplies(number, unit):
    assert parse_bytes(f"{number} {unit}") == number * BYTES[unit]


@given(st.integers(1, 10**9), st.sampled_from(sorted(HERTZ)))
def test_every_unit_of_frequency_multiplies(number, unit):
    assert parse_hertz(f"{number} {unit}") == number * HERTZ[unit]


def refused(parse, value):
    with pytest.raises(ContractError) as caught:
        parse(value, "$.memory.ram")
    assert caught.value.what.startswith("$.memory.ram: ")
    return caught.value


def test_a_frequency_is_no_size():
    error = refused(parse_bytes, "8 GHz")
    assert error.code == "wrong-unit"
    assert "'GHz'" in error.what
    assert '"8 GiB"' in error.expected


def test_a_size_is_no_frequency():
    error = refused(parse_hertz, "8 GiB")
    assert error.code == "wrong-unit"
    assert '"2.4 GHz"' in error.expected


@pytest.mark.parametrize("bare", [8, 8.0, "8", "8.5", None, True])
def test_a_bare_number_has_no_unit(bare):
    error = refused(parse_bytes, bare)
    assert error.code == "no-unit"
    assert '"8 GiB"' in error.expected


def test_a_unit_in_the_wrong_case_names_the_right_one():
    assert "did you mean 'GiB'?" in refused(parse_bytes, "8 Gib").what


@pytest.mark.parametrize(
    "text", ["", "GiB", "-8 GiB", "8  GiB", " 8 GiB", "8 GiB ", "1e3 B", "8,5 GiB", "٨ GiB", "8 GiB\n"]
)
def test_what_is_no_quantity(text):
    assert refused(parse_bytes, text).code == "not-a-quantity"


@pytest.mark.parametrize("text", ["0.3 B", "0 GiB", "1.0001 KiB"])
def test_a_part_of_a_byte_or_nothing_at_all(text):
    assert refused(parse_bytes, text).code == "not-whole"


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    try:
        assert parse_bytes(text) > 0
    except ContractError as error:
        assert error.expected  # noqa: PT017 - either way out is right, both are checked
