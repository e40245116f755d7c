"""The quick reader of lines and the strict one tell the same, whatever the line."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from bandit.core.outcomes import Outcome
from liveops.api.bodies import NewOutcome, read
from liveops.api.outcome_lines import outcome_in
from liveops.api.strict_json import parse

ID = "01234567-89ab-8def-8123-456789abcdef"
LAWFUL = {
    "assignment_id": f'"{ID}"',
    "pnl": '"12.34"',
    "return": "0.0012",
    "opened_at": '"2026-03-01T12:00:00Z"',
    "closed_at": '"2026-03-01T13:00:00.5+00:30"',
}
OPTIONAL = ("fees", "slippage", "size", "r_multiple", "worst_excursion", "no_trade", "note")
# What may stand behind a key, lawful somewhere or nowhere.
TOKENS = [
    '"12.34"',
    "12.34",
    '"-0.00000001"',
    "-1",
    "0",
    "-0",
    "-0.0",
    "1e-3",
    "1E5",
    "01",
    ".5",
    "5.",
    "+1",
    "NaN",
    "Infinity",
    "null",
    "true",
    "false",
    '""',
    '"1_000"',
    '" 1"',
    '"\\u0031"',
    '"\u0661"'.encode().decode("unicode_escape"),  # a digit of another script
    "[1]",
    '{"a": 1}',
    '{"pnl": "1"}',
    "99999999999999999",
    "9999999999999999.999999999",
    "0.123456789012345678901",
    '"' + "1" * 17 + '"',
    f'"{ID.upper()}"',
    f'"{ID.replace("-", "")}"',
    '"2026-03-01T12:00:00"',
    '"2026-02-30T12:00:00Z"',
    '"2026-03-01 12:00:00Z"',
    '"2026-03-01T12:00:00.1234567Z"',
    '"1999-12-31T23:59:59Z"',
    '"2026-03-01T24:00:00Z"',
    '"2026-03-01T12:59:60Z"',
    '"2026-03-01T12:00:00+24:00"',
    '"2026-03-01T12:00:00-23:59"',
    '"2026-03-01T12:00:00-00:00"',
    '"2026-03-01T12:00:00+05:60"',
    '"0001-01-01T00:00:00+14:00"',
    '"9999-12-31T23:59:59.999999-14:00"',
]


def strictly(line: bytes) -> Outcome | str:
    try:
        return read(NewOutcome, parse(line)).outcome()
    except InvalidInput as error:
        return f"{error.code}: {error}"


def drawn(rng: np.random.Generator) -> bytes:
    """A lawful line that was spoilt in none, one or several ways."""
    members = list(LAWFUL.items())
    for name in OPTIONAL:
        if rng.random() < 0.15:
            members.append((name, str(rng.choice(TOKENS))))
    for i in range(len(members)):
        if rng.random() < 0.05:
            members[i] = (members[i][0], str(rng.choice(TOKENS)))
    if rng.random() < 0.05:  # a key twice, with the same value or another
        name, token = members[int(rng.integers(len(members)))]
        members.append((name, str(rng.choice([token, *TOKENS]))))
    if rng.random() < 0.05:
        del members[int(rng.integers(len(members)))]
    rng.shuffle(members)
    space = str(rng.choice(["", " ", "\t"]))
    line = f",{space}".join(f'"{name}":{space}{token}' for name, token in members)
    ends = [("{", "}"), (" {", "} "), ("{", "}x"), ("[{", "}]"), ("\ufeff{", "}"), ("", "")]
    start, end = ends[int(rng.choice(len(ends), p=[0.9, 0.02, 0.02, 0.02, 0.02, 0.02]))]
    return f"{start}{line}{end}".encode()


def test_both_readers_tell_the_same() -> None:
    rng, seen = np.random.default_rng(20261121), Counter[type]()
    for _ in range(20_000):
        line = drawn(rng)
        found, expected = outcome_in(line), strictly(line)
        said = f"{found.code}: {found}" if isinstance(found, InvalidInput) else found
        assert said == expected, line
        if isinstance(found, Outcome):
            assert isinstance(expected, Outcome)
            assert found.body_hash() == expected.body_hash()
        seen[type(found)] += 1
    assert seen[Outcome] > 3_000
    assert len(seen) == 3


@pytest.mark.parametrize("name", LAWFUL)
def test_key_that_stands_twice_is_refused_even_with_one_value(name: str) -> None:
    members = [*LAWFUL.items(), (name, LAWFUL[name])]
    line = "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in members) + "}"
    found = outcome_in(line.encode())
    assert isinstance(found, InvalidInput)
    assert "must not repeat a key" in str(found)
