"""What differs in words and in JSON, and how much of it is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from ledger import NOON

from bandit.core.errors import InvalidInput
from bandit.core.reconciling import (
    FINDINGS_MAX,
    Books,
    Finding,
    Key,
    Kind,
    Reconciliation,
    ReconciliationRule,
    Word,
    judged,
    summary,
)

RULE = ReconciliationRule()


def missing(number: int) -> Finding:
    return Finding(key=Key(Kind.MISSING, UUID(int=number)), since=NOON, in_force=True)


def test_the_first_few_of_each_kind_are_named() -> None:
    said = summary([missing(n) for n in range(5)])
    named = ", ".join(str(UUID(int=n)) for n in range(3))
    assert said == f"5 missing: {named} and 2 more"


def test_what_is_said_fits_its_column_however_much_differs() -> None:
    kinds = [kind for kind in Kind if kind is not Kind.BALANCE]
    every = [replace(missing(n), key=Key(kind, UUID(int=n))) for kind in kinds for n in range(100)]
    money = Decimal("12345678901234567.12345678")
    balance = Finding(key=Key(Kind.BALANCE), since=NOON, in_force=True, told=money, ledger=-money)
    said = summary([*every, balance], accepted_difference=money)
    assert said.startswith("balance: bots tell 12345678901234567.12345678, the ledger -1234")
    assert len(said) <= 1000


@pytest.mark.parametrize(
    "finding",
    [
        missing(7),
        Finding(
            key=Key(Kind.BALANCE),
            since=NOON,
            in_force=False,
            told=Decimal("1.50000000"),
            ledger=Decimal("-2"),
        ),
    ],
)
def test_a_finding_comes_back_from_json(finding: Finding) -> None:
    assert Finding.from_json(finding.to_json()) == finding


def test_of_many_differences_the_oldest_stay_until_they_end() -> None:
    open_ = {UUID(int=n): NOON for n in range(FINDINGS_MAX + 50)}
    books = Books(open=open_, told={}, equity=Decimal(1))
    state = Reconciliation()
    for seconds in (0, 60):
        at = NOON + timedelta(seconds=seconds)
        words = [Word("alpha", at, frozenset(), None)]
        state = judged(state, words, books, RULE, now=at)
        assert len(state.findings) == FINDINGS_MAX
    assert len(state.in_force) == FINDINGS_MAX


def at(seconds: int) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_what_nobody_holds_counts_once_every_bot_has_spoken_again() -> None:
    books = Books(open={UUID(int=1): NOON}, told={}, equity=Decimal(1))
    state = Reconciliation()
    for now, alpha, beta, in_force in (
        (0, 0, 0, False),
        (60, 60, 0, False),
        (61, 60, 59, False),
        (62, 60, 61, True),
    ):
        words = [
            Word("alpha", at(alpha), frozenset(), None),
            Word("beta", at(beta), frozenset(), None),
        ]
        state = judged(state, words, books, RULE, now=at(now))
        assert [finding.in_force for finding in state.findings] == [in_force]


def test_a_restart_waits_for_bots_that_spoke_before_the_claim() -> None:
    books = Books(open={UUID(int=1): at(10)}, told={}, equity=Decimal(1))
    for beta, in_force in ((9, False), (11, True)):
        words = [
            Word("alpha", at(30), frozenset(), None),
            Word("beta", at(beta), frozenset(), None),
        ]
        state = judged(Reconciliation(), words, books, RULE, now=at(30), began=("alpha", at(20)))
        assert [finding.in_force for finding in state.findings] == [in_force]


@pytest.mark.parametrize(
    "fields",
    [{"balance_tolerance": Decimal("1.1")}, {"grace": timedelta(seconds=-1)}],
)
def test_rules_that_cannot_be_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        ReconciliationRule(**fields)  # type: ignore[arg-type]
