"""Evidence as decisions of some days would leave it, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
from ledger import NIGHT
from sqlalchemy import Engine

from bandit.core.cohorts import Cohort
from bandit.core.evidence import Tally
from bandit.core.model import PolicyName
from bandit.service import experiments
from bandit.storage import evidence
from bandit.storage.engine import transaction
from bandit.storage.evidence import CohortKey, CohortTable

MATURE = NIGHT.date() - timedelta(days=10)


def cohorts(scores: Sequence[float], *, last: date = MATURE) -> list[Cohort]:
    """Forty decisions a day, half of them the challenger's, all with the score of their day."""
    chosen = np.arange(40) % 2 == 0
    return [
        Cohort(
            day=last - timedelta(days=ago), tally=Tally.of(np.full((40, 2), score), chosen=chosen)
        )
        for ago, score in reversed(list(enumerate(reversed(scores))))
    ]


def leave(
    engine: Engine,
    policy: str,
    found: Sequence[Cohort],
    *,
    champion: str = "prod",
    table: CohortTable = "evidence_cohorts",
) -> None:
    """Store cohorts of an arm of `btc` beside a champion."""
    with transaction(engine) as connection:
        record = experiments.experiments.load(connection, "btc")
        ids = {arm.place.policy: arm.id for arm in record.arms}
        keyed = {
            CohortKey(ids[PolicyName(policy)], ids[PolicyName(champion)], each.day): each.tally
            for each in found
        }
        evidence.add(connection, keyed, table=table)


def prove(engine: Engine, policy: str, mean: float, *, last: date = MATURE, days: int = 20) -> None:
    """Leave the evidence that decisions of some days would, the last of them on `last`."""
    leave(engine, policy, cohorts([mean] * days, last=last))
