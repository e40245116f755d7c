"""Where challengers stand: what their evidence in the ledger amounts to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection

from bandit.core.cohorts import CohortSums
from bandit.core.fill_gap import paper_agrees
from bandit.core.ladder import (
    ArmEvidence,
    EvidenceSums,
    Family,
    Standing,
    families,
    matured,
    newest_matured,
)
from bandit.core.model import ArmRole, PolicyName
from bandit.storage import decisions, evidence, shadows
from bandit.storage.decisions import DecisionRecord
from bandit.storage.evidence import CohortTable
from bandit.storage.experiments import ArmRecord, ExperimentRecord

_TABLES: tuple[CohortTable, CohortTable] = ("evidence_cohorts", "paired_cohorts")


def of_challengers(
    connection: Connection, record: ExperimentRecord, *, now: datetime
) -> dict[PolicyName, Standing]:
    """Return where every challenger of an experiment stands beside its champion."""
    since = decisions.newest_succession(connection, record.experiment.name)
    by_arm = _families(connection, record, since)
    arms = [arm for arm in record.kept_arms if arm.place.role is ArmRole.CHALLENGER]
    known = _sums(connection, arms, record, since=since, now=now)
    return {
        arm.place.policy: Standing.of(
            known[arm.id], family=by_arm[arm.place.policy], rule=record.rules.ladder
        )
        for arm in arms
    }


def of_challenger(
    connection: Connection, record: ExperimentRecord, arm: ArmRecord, *, now: datetime
) -> tuple[ArmEvidence, Family]:
    """Return what is known of a challenger, day by day, and the family it is judged in."""
    since = decisions.newest_succession(connection, record.experiment.name)
    family = _families(connection, record, since)[arm.place.policy]
    champions = _champions(connection, record, since)
    return _known(connection, arm, record, champions, since=since, now=now), family


def _champions(
    connection: Connection, record: ExperimentRecord, since: DecisionRecord | None
) -> Collection[PolicyName]:
    """Return everyone who was ever the champion, where there was more than one."""
    return () if since is None else decisions.champions(connection, record.id)


def _sums(
    connection: Connection,
    arms: Sequence[ArmRecord],
    record: ExperimentRecord,
    *,
    since: DecisionRecord | None,
    now: datetime,
) -> dict[int, EvidenceSums]:
    """Read what is known of arms, its days added up by the ledger; otherwise as `_known`."""
    ids = [arm.id for arm in arms]
    champion = record.arm_of(record.experiment.champion).id
    champions = _champions(connection, record, since)
    hold_outs = [arm.id for arm in arms if arm.place.policy in champions]
    after = None if since is None else since.decided_at.date()
    until = newest_matured(now=now, rule=record.rules.ladder)
    routed = evidence.sums(
        connection, ids, champion_id=champion, after=after, until=until, hold_outs=hold_outs
    )
    paired = evidence.paired_totals(connection, ids, champion_id=champion, after=after, until=until)
    gaps = shadows.gaps_of(connection, ids)
    return {
        arm.id: EvidenceSums(
            trades=arm.place.trades,
            routed=routed.get(arm.id, CohortSums()),
            paired=paired.get(arm.id),
            fill_gap=paper_agrees(gaps[arm.id], record.rules.fill_gap).verdict,
            is_hold_out=arm.id in hold_outs,
        )
        for arm in arms
    }


def _families(
    connection: Connection, record: ExperimentRecord, since: DecisionRecord | None
) -> dict[PolicyName, Family]:
    """Return every arm's family.

    Arms that have retired count in theirs: they were looked at too. Promotions of arms that were
    not eligible earn their successors nothing.
    """
    # A champion that was promoted had been a challenger.
    joined = {
        arm.place.policy: arm.joined_at
        for arm in record.arms
        if arm.place.role is ArmRole.CHALLENGER or since is not None
    }
    return families(joined, decisions.discoveries(connection, record.id))


def _known(
    connection: Connection,
    arm: ArmRecord,
    record: ExperimentRecord,
    champions: Collection[PolicyName],
    *,
    since: DecisionRecord | None,
    now: datetime,
) -> ArmEvidence:
    """Read what is known of an arm; of a champion that returned, what is known since it did."""
    rule = record.rules.ladder
    champion = record.arm_of(record.experiment.champion)
    routed, paired = (
        evidence.cohorts(connection, arm_id=arm.id, champion_id=champion.id, table=table)
        for table in _TABLES
    )
    if since is not None:
        began = since.decided_at.date()
        routed, paired = ([c for c in found if c.day > began] for found in (routed, paired))
    gap = paper_agrees(shadows.gap_of(connection, arm.id), record.rules.fill_gap)
    return ArmEvidence(
        trades=arm.place.trades,
        routed=matured(routed, now=now, rule=rule),
        paired=matured(paired, now=now, rule=rule) if paired else None,
        fill_gap=gap.verdict,
        is_hold_out=arm.place.policy in champions,
    )
