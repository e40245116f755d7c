"""What bots tell against the ledger, over every mix of bots, lists and times."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from ledger import NOON

from bandit.core.reconciling import (
    Books,
    Finding,
    Key,
    Kind,
    Reconciliation,
    ReconciliationRule,
    ReconciliationState,
    Standing,
    Word,
    judged,
)

SECOND = timedelta(seconds=1)
IDS = [UUID(int=n) for n in range(6)]
EARLIER = NOON - timedelta(hours=1)
KNOWN = Standing(None, EARLIER)
AGREES, DIFFERS, BLOCKED = ReconciliationState

positions = st.frozensets(st.sampled_from(IDS))
lists = st.lists(st.none() | positions, min_size=1, max_size=4)
rules = st.builds(
    ReconciliationRule,
    balance_tolerance=st.sampled_from([Decimal(0), Decimal("0.01")]),
    grace=st.integers(0, 90).map(lambda seconds: seconds * SECOND),
)


def said(told: list[frozenset[UUID] | None], at: datetime) -> list[Word]:
    return [Word(f"bot-{n}", at, held, None) for n, held in enumerate(told)]


def books(*, held: frozenset[UUID], unknown: frozenset[UUID] = frozenset()) -> Books:
    standings = {key: Standing(Kind.UNKNOWN, None) if key in unknown else KNOWN for key in IDS}
    return Books(open=dict.fromkeys(held, EARLIER), told=standings, equity=Decimal(100))


def positions_of(found: Reconciliation, kind: Kind) -> set[UUID]:
    return {f.key.position for f in found.findings if f.key.kind is kind and f.key.position}


@given(told=lists, held=positions, unknown=positions, rule=rules)
def test_all_that_differs_is_seen_and_nothing_else(
    told: list[frozenset[UUID] | None],
    held: frozenset[UUID],
    unknown: frozenset[UUID],
    rule: ReconciliationRule,
) -> None:
    union = frozenset[UUID]().union(*(each for each in told if each is not None))
    ledger = books(held=held - unknown, unknown=unknown)
    found = judged(Reconciliation(), said(told, NOON), ledger, rule, now=NOON)
    assert positions_of(found, Kind.UNKNOWN) == union & unknown
    # Who tells of no positions may hold any of them.
    missing = held - unknown - union if None not in told else frozenset()
    assert positions_of(found, Kind.MISSING) == missing
    assert found.state(rule) is AGREES  # one heartbeat alone puts nothing in force


@given(gaps=st.lists(st.integers(1, 50), min_size=1, max_size=8), rule=rules, missing=st.booleans())
def test_a_difference_is_in_force_from_the_second_heartbeat_behind_its_grace(
    gaps: list[int], rule: ReconciliationRule, missing: bool
) -> None:
    id_ = IDS[0]
    ledger = books(held=frozenset({id_})) if missing else books(held=frozenset(), unknown={id_})  # type: ignore[arg-type]
    told = frozenset[UUID]() if missing else frozenset({id_})
    state, at = Reconciliation(), NOON
    state = judged(state, said([told], at), ledger, rule, now=at)
    for gap in gaps:
        at += gap * SECOND
        state = judged(state, said([told], at), ledger, rule, now=at)
        assert (state.state(rule) is BLOCKED) == (at - NOON >= rule.grace)
    # One heartbeat that agrees ends it, and what comes later begins anew.
    agreeing = frozenset({id_}) if missing else frozenset[UUID]()
    state = judged(state, said([agreeing], at + SECOND), ledger, rule, now=at + SECOND)
    assert state == Reconciliation()
    state = judged(state, said([told], at + 2 * SECOND), ledger, rule, now=at + 2 * SECOND)
    assert state.state(rule) is AGREES


@given(started=st.integers(-30, 30), claimed=st.integers(-60, 0), grace=st.integers(0, 90))
def test_a_restart_has_no_grace_for_what_was_held_before_it(
    started: int, claimed: int, grace: int
) -> None:
    began, at = NOON + started * SECOND, NOON + 31 * SECOND
    rule = ReconciliationRule(grace=grace * SECOND)
    ledger = Books(
        open={IDS[0]: NOON + claimed * SECOND},
        told={IDS[1]: Standing(Kind.CLOSED, NOON + claimed * SECOND)},
        equity=Decimal(100),
    )
    told = [Word("alpha", at, frozenset({IDS[1]}), None)]
    found = judged(Reconciliation(), told, ledger, rule, now=at, began=("alpha", began))
    is_earlier = NOON + claimed * SECOND < began
    assert [f.in_force for f in found.findings] == [is_earlier, is_earlier]
    # Another bot's restart says nothing of what this one holds.
    other = judged(Reconciliation(), told, ledger, rule, now=at, began=("beta", began))
    assert not any(f.in_force for f in other.findings if f.key.kind is Kind.CLOSED)


@given(told=lists, held=positions, rule=rules)
def test_what_is_not_told_neither_begins_nor_ends(
    told: list[frozenset[UUID] | None], held: frozenset[UUID], rule: ReconciliationRule
) -> None:
    ledger = books(held=held)
    began = Finding(key=Key(Kind.MISSING, IDS[0]), since=NOON, in_force=False)
    stands = [
        Finding(key=Key(kind, id_), since=NOON, in_force=True)
        for kind, id_ in ((Kind.MISSING, IDS[1]), (Kind.UNKNOWN, IDS[2]), (Kind.BALANCE, None))
    ]
    silent = judged(Reconciliation(findings=(began, *stands)), [], ledger, rule, now=NOON)
    # The ledger alone can end what is missing: then it is open no more.
    kept = [f for f in stands if f.key.kind is not Kind.MISSING or IDS[1] in held]
    assert sorted(silent.findings, key=str) == sorted(kept, key=str)
    assert [f for f in silent.findings if f.key.kind is Kind.BALANCE]


@given(
    told=st.decimals("0", "300", places=2),
    accepted=st.decimals("-50", "50", places=2),
    ledger=st.decimals("-20", "200", places=2),
    rule=rules,
)
def test_the_balance_agrees_within_its_tolerance_of_the_ledger(
    told: Decimal, accepted: Decimal, ledger: Decimal, rule: ReconciliationRule
) -> None:
    held = Reconciliation(accepted_difference=accepted)
    words = [Word("alpha", NOON, None, told)]
    found = judged(held, words, Books(open={}, told={}, equity=ledger), rule, now=NOON)
    apart = abs(told - accepted - ledger)
    assert bool(found.findings) == (apart > rule.balance_tolerance * max(ledger, Decimal(0)))
    # Whoever accepts what differs now makes it agree, to the last digit.
    again = judged(
        found.with_accepted(),
        words,
        Books(open={}, told={}, equity=ledger),
        ReconciliationRule(balance_tolerance=Decimal(0)),
        now=NOON,
    )
    assert not found.findings or not again.findings


@given(told=lists, held=positions, unknown=positions, rule=rules)
def test_what_was_accepted_differs_no_more_as_long_as_it_is_so(
    told: list[frozenset[UUID] | None],
    held: frozenset[UUID],
    unknown: frozenset[UUID],
    rule: ReconciliationRule,
) -> None:
    ledger = books(held=held - unknown, unknown=unknown)
    state = judged(Reconciliation(), said(told, NOON), ledger, rule, now=NOON).with_accepted()
    for seconds in (100, 200):
        at = NOON + seconds * SECOND
        state = judged(state, said(told, at), ledger, rule, now=at, began=("bot-0", at))
        assert state.findings == ()
    agreeing = [(held - unknown)]
    ended = judged(state, said(agreeing, at), ledger, rule, now=at)
    assert ended == Reconciliation()
