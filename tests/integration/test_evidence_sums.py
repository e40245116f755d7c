"""What the ledger adds up of an arm's evidence is what its cohorts come to, to the last step."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
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


@pytest.mark.parametrize("table", ["evidence_cohorts", "paired_cohorts"])
def test_the_ledger_adds_up_what_the_cohorts_come_to(engine: Engine, table: CohortTable) -> None:
    open_btc(engine)
    ids = arm_ids(engine)

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.explicit, Phase.generate],
    )
    @given(histories, st.none() | st.integers(0, 12), st.integers(0, 12))
    def holds(history: dict[int, Tally], after: int | None, until: int) -> None:
        with transaction(engine) as connection:
            connection.execute(text(f"DELETE FROM {table}"))
        cohorts = [
            Cohort(day=FIRST + timedelta(days=day), tally=tally)
            for day, tally in sorted(history.items())
        ]
        leave(engine, CHALLENGER, cohorts, table=table)
        with snapshot(engine) as connection:
            found = evidence.sums(
                connection,
                ids.values(),
                champion_id=ids["prod"],
                after=None if after is None else FIRST + timedelta(days=after),
                until=FIRST + timedelta(days=until),
                table=table,
            )
        first = -1 if after is None else after
        counted = [c for c in cohorts if first < (c.day - FIRST).days <= until]
        if all(day <= first for day in history):
            assert found == {}
        else:
            assert found == {ids[CHALLENGER]: CohortSums.of(counted)}
            assert found[ids[CHALLENGER]].total == total(c.tally for c in counted)

    holds()
