"""What the ledger adds up of an arm's evidence is what its cohorts come to, to the last step."""

from __future__ import annotations

from array import array
from dataclasses import replace
from datetime import date, timedelta

from evidence_history import leave
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ledger import CHALLENGER, open_btc
from shadow_history import arm_ids
from sqlalchemy import Engine, text

from bandit.core.cohorts import Cohort, CohortSums
from bandit.core.evidence import BETS, Tally, total
from bandit.storage import evidence
from bandit.storage.engine import snapshot, transaction
from bandit.storage.evidence import CohortTable

FIRST = date(2026, 1, 1)
# A day of a million decisions, a hundred units each, is far beyond 64 bits.
steps = st.integers(-(10**26), 10**26)
counts = st.one_of(st.just(0), st.integers(0, 10**6))
tallies = st.builds(
    Tally,
    n_challenger=counts,
    n_champion=counts,
    scores=st.tuples(steps, steps),
    wealth=st.tuples(*[steps] * (4 * len(BETS))),
)
histories = st.dictionaries(st.integers(0, 12), tallies, max_size=8)


TABLES: tuple[CohortTable, CohortTable] = ("evidence_cohorts", "paired_cohorts")


def test_the_ledger_adds_up_what_the_cohorts_come_to(engine: Engine) -> None:
    open_btc(engine)
    ids = arm_ids(engine)
    challenger = ids[CHALLENGER]

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.explicit, Phase.generate],
    )
    @given(histories, st.none() | st.integers(0, 12), st.integers(0, 12), st.booleans())
    def holds(history: dict[int, Tally], after: int | None, until: int, holds_out: bool) -> None:
        cohorts = [
            Cohort(day=FIRST + timedelta(days=day), tally=tally)
            for day, tally in sorted(history.items())
        ]
        with transaction(engine) as connection:
            for table in TABLES:
                connection.execute(text(f"DELETE FROM {table}"))
        for table in TABLES:
            leave(engine, CHALLENGER, cohorts, table=table)
        asked = {
            "champion_id": ids["prod"],
            "after": None if after is None else FIRST + timedelta(days=after),
            "until": FIRST + timedelta(days=until),
        }
        with snapshot(engine) as connection:
            hold_outs = [challenger] if holds_out else []
            routed = evidence.sums(connection, ids.values(), **asked, hold_outs=hold_outs)
            paired = evidence.paired_totals(connection, ids.values(), **asked)
        first = -1 if after is None else after
        counted = [c for c in cohorts if first < (c.day - FIRST).days <= until]
        if all(day <= first for day in history):
            assert routed == paired == {}
        else:
            expected = CohortSums.of(counted)
            if not holds_out:
                expected = replace(expected, bets_for=array("d"))
            assert routed == {challenger: expected}
            assert paired == {challenger: total(c.tally for c in counted)}

    holds()
