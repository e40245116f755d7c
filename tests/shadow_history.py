"""Decisions with results on paper, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
from ledger import NOON
from sqlalchemy import Engine

from bandit.core import evidence
from bandit.core.evidence import Tally, Terms
from bandit.core.fill_gap import FillGap
from bandit.core.model import Assignment, PolicyName
from bandit.core.paper_days import PaperSums
from bandit.core.shadow import ShadowOutcome, shadow_declined, shadow_trade
from bandit.service import experiments, shadowing
from bandit.storage import evidence as stored
from bandit.storage import paper_days as stored_days
from bandit.storage import shadows
from bandit.storage.engine import snapshot, transaction

TERMS = Terms(unit=0.004, baseline=0.2, profit_factor=1.5, units={"ETHUSD": 0.02})
FIXED = NOON + timedelta(hours=1)
LATER = NOON + timedelta(hours=2)
NEXT_DAY = LATER + timedelta(days=1)


def fix(engine: Engine, terms: Terms = TERMS, *, now: datetime = FIXED) -> None:
    """Judge decisions of `btc` by these terms from now on."""
    with transaction(engine) as connection:
        record = experiments.experiments.load(connection, "btc")
        stored.fix_terms(connection, record.id, terms, fixed_at=now)


def on_paper(
    assignment: Assignment, policy: str, earned: str | None, *, minutes: int = 60
) -> ShadowOutcome:
    """What a policy would have earned on a decision; None where it would have declined."""
    if earned is None:
        return shadow_declined(assignment.id, PolicyName(policy))
    return shadow_trade(
        assignment.id,
        PolicyName(policy),
        return_ratio=Decimal(earned),
        opened_at=assignment.decided_at,
        closed_at=assignment.decided_at + timedelta(minutes=minutes),
    )


def tell(engine: Engine, batch: Sequence[ShadowOutcome], *, now: datetime = NEXT_DAY) -> None:
    """Record results on paper that must all be accepted."""
    for start in range(0, len(batch), 500):
        for answer in shadowing.record(engine, batch[start : start + 500], now=now):
            assert isinstance(answer, shadowing.RecordedShadow), answer


def arm_ids(engine: Engine) -> dict[str, int]:
    """The arms of `btc` by policy."""
    with snapshot(engine) as connection:
        record = experiments.experiments.load(connection, "btc")
    return {arm.place.policy: arm.id for arm in record.arms}


def pairs(engine: Engine, policy: str, champion: str = "prod") -> dict[str, Tally]:
    """The stored cohorts of pairs of a challenger beside the champion, by day."""
    ids = arm_ids(engine)
    with snapshot(engine) as connection:
        found = stored.cohorts(
            connection, arm_id=ids[policy], champion_id=ids[champion], table="paired_cohorts"
        )
    return {cohort.day.isoformat(): cohort.tally for cohort in found}


def gap(engine: Engine, policy: str) -> FillGap:
    """The stored fill gap of an arm."""
    with snapshot(engine) as connection:
        return shadows.gap_of(connection, arm_ids(engine)[policy])


def paper_days(engine: Engine, policy: str) -> dict[str, PaperSums]:
    """The stored results on paper of an arm, by day."""
    with snapshot(engine) as connection:
        found = stored_days.of_arm(connection, arm_ids(engine)[policy])
    return {day.day.isoformat(): day.sums for day in found}


def expected_pairs(
    both: Sequence[tuple[str, str]], live: Sequence[bool], *, terms: Terms = TERMS
) -> Tally:
    """The tally of pairs: the challenger's return, the champion's, whether that one is live."""
    challenger, champion = (
        evidence.rewards([float(pair[side]) / terms.unit for pair in both], terms)
        for side in (0, 1)
    )
    scores = evidence.paired_scores(challenger, champion)
    return Tally.of(scores, chosen=~np.array(live, dtype=bool))


def state(engine: Engine, policies: Sequence[str]) -> Mapping[str, object]:
    """All that is counted of pairs and gaps."""
    return {policy: (pairs(engine, policy), gap(engine, policy)) for policy in policies}
