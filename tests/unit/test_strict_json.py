from __future__ import annotations

import json
from decimal import Decimal

import pytest

from liveops.api.strict_json import DEPTH_MAX, DIGITS_MAX, MalformedJson, parse, plain


def refused(body: bytes) -> MalformedJson:
    with pytest.raises(MalformedJson) as caught:
        parse(body)
    return caught.value


def test_numbers_are_exact() -> None:
    assert parse(b"[0.1, 12.340, 1E-8, -7, 9007199254740993]") == [
        Decimal("0.1"),
        Decimal("12.340"),
        Decimal("0.00000001"),
        Decimal(-7),
        Decimal(9007199254740993),
    ]
    assert str(parse(b"12.340")) == "12.340"


def test_text_truth_and_nothing_come_as_they_are() -> None:
    body = '{"a": "é \\u00e9 \\ud83d\\ude00", "b": [true, false, null], "c": {}}'
    assert parse(body.encode()) == {"a": "é é \U0001f600", "b": [True, False, None], "c": {}}


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused_where_it_stands(token: str) -> None:
    error = refused(f'{{"trades": [{{"pnl": 1}}, {{"pnl": {token}}}]}}'.encode())
    assert (error.field, error.rule) == ("trades[1].pnl", "must be a finite number")
    assert error.found == token


@pytest.mark.parametrize(
    "token",
    ["1e309", "-1e309", "1e400", "1e-309", "5e-324", "1e999999999999999999", "0.1e-308"],
)
def test_a_number_outside_the_range_of_doubles_is_refused(token: str) -> None:
    error = refused(f'{{"pnl": {token}}}'.encode())
    assert (error.field, error.rule) == ("pnl", "must be 0, or 1e-308 to 1e308 in size")


@pytest.mark.parametrize("token", ["1e308", "9.9e307", "1e-308", "0e999", "-0.0", "0.00e-99999"])
def test_the_ends_of_the_range_are_lawful(token: str) -> None:
    assert isinstance(parse(token.encode()), Decimal)


def test_a_number_may_have_forty_digits_and_no_more() -> None:
    assert parse(b"1" * DIGITS_MAX) == Decimal("1" * DIGITS_MAX)
    assert refused(b"1" * (DIGITS_MAX + 1)).rule == "must have at most 40 digits"
    assert refused(b"9" * 5000).rule == "must have at most 40 digits"
    assert refused(b"0." + b"0" * 40 + b"1").rule == "must have at most 40 digits"


def test_a_repeated_key_is_refused_by_name() -> None:
    error = refused(b'{"a": {"pnl": 1, "fees": 2, "pnl": 1}}')
    assert (error.field, error.rule, error.found) == ("a", "must not repeat a key", "'pnl'")


def test_nesting_has_an_end() -> None:
    deepest = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    assert json.dumps(parse(deepest)).count("[") == DEPTH_MAX
    assert refused(b"[" + deepest + b"]").rule == "must be nested at most 32 deep"
    assert refused(b"[" * 100_000).rule == "must be nested at most 32 deep"
    assert refused(b'{"a":' * 100_000).rule == "must be nested at most 32 deep"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'"\\u0000"', "body"),
        (b'{"reason": "a\\u0000b"}', "reason"),
        (b'{"reason": ["\\ud800"]}', "reason[0]"),
        (b'{"\\udfff": 1}', "body"),
    ],
)
def test_text_that_cannot_be_stored_is_refused(body: bytes, field: str) -> None:
    error = refused(body)
    assert (error.field, error.rule) == (
        field,
        "must not hold \\u0000 or half of a surrogate pair",
    )


@pytest.mark.parametrize(
    "body",
    [b"\xff", b'"\xc3"', b"\xed\xa0\x80", "{}".encode("utf-16"), '"ä"'.encode("latin-1")],
)
def test_only_utf_8_is_read(body: bytes) -> None:
    assert refused(body).rule == "must be UTF-8"


def test_a_byte_order_mark_is_refused() -> None:
    assert refused(b"\xef\xbb\xbf{}").rule == "must not start with a byte order mark"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{} {}",
        b"{} x",
        b"{,}",
        b"[1,]",
        b"{'a': 1}",
        b'{"a": 01}',
        b'"\n"',
        b"+1",
        b"0x1",
    ],
)
def test_what_is_not_json_is_refused_with_its_place(body: bytes) -> None:
    error = refused(body)
    assert error.rule.startswith("must be JSON: ")
    assert error.found.startswith("line ")
    assert error.code == "malformed_json"


def test_plain_numbers_survive_storing_and_reading_them_back() -> None:
    stored = plain(parse(b'{"n": 30, "x": [0.65, 1.0, 1e23, -0.0], "s": "1"}'))
    assert stored == {"n": 30, "x": [0.65, 1.0, 10**23, 0.0], "s": "1"}
    assert [type(value) for value in stored["x"]] == [float, float, int, float]
    assert json.loads(json.dumps(stored)) == stored
