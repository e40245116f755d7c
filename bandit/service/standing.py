"""Where challengers stand: what their evidence in the ledger amounts to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from bandit.core.ladder import ArmEvidence, Standing, families, matured
from bandit.core.model import ArmRole, PolicyName, Verdict
from bandit.storage import evidence
from bandit.storage.experiments import ArmRecord, ExperimentRecord


def of_challengers(
    connection: Connection, record: ExperimentRecord, *, now: datetime
) -> dict[PolicyName, Standing]:
    """Return where every challenger of an experiment stands beside its champion.

    Arms that have retired count in their families: they were looked at too.
    """
    joined = {
        arm.place.policy: arm.joined_at
        for arm in record.arms
        if arm.place.role is ArmRole.CHALLENGER
    }
    by_arm = families(joined, ())
    (champion,) = (arm for arm in record.arms if arm.place.role is ArmRole.CHAMPION)
    return {
        arm.place.policy: Standing.of(
            _known(connection, arm, champion, record=record, now=now),
            family=by_arm[arm.place.policy],
            rule=record.rules.ladder,
        )
        for arm in record.kept_arms
        if arm.place.role is ArmRole.CHALLENGER
    }


def _known(
    connection: Connection,
    arm: ArmRecord,
    champion: ArmRecord,
    *,
    record: ExperimentRecord,
    now: datetime,
) -> ArmEvidence:
    cohorts = evidence.cohorts(connection, arm_id=arm.id, champion_id=champion.id)
    return ArmEvidence(
        trades=arm.place.trades,
        routed=matured(cohorts, now=now, rule=record.rules.ladder),
        shadow=None,
        fill_gap=Verdict.INCONCLUSIVE,
    )
