"""What became of units that chance routed: who got them, and what came of their claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from bandit.core.claims import WINDOW, Claims, Draws
from bandit.core.detectors import ratio_mismatch
from bandit.core.ladder import matured_before
from bandit.core.model import WHOLE_PPM, PolicyName
from bandit.storage import claims, evidence
from bandit.storage.claims import RoutedUnits
from bandit.storage.engine import taking_long
from bandit.storage.experiments import ExperimentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a night finds of the newest units: claims by arm, of those that have any, and draws."""

    claims: Mapping[PolicyName, Claims]
    draws: Draws | None


def settled(connection: Connection, record: ExperimentRecord, *, now: datetime) -> Settled:
    """Count what bots claimed of the units within `claims.WINDOW`, and hold draws to their shares.

    Whatever is still within its attribution window is drawn, and not asked for its outcome.
    """
    matured = matured_before(now=now, rule=record.rules.ladder)
    with taking_long(connection):
        found = claims.routed_units(connection, record.id, since=now - WINDOW, matured=matured)
    return Settled(
        claims=_claims(record, found),
        draws=_draws(connection, record, found) if found else None,
    )


def _claims(record: ExperimentRecord, found: Sequence[RoutedUnits]) -> dict[PolicyName, Claims]:
    counted = {}
    for arm in record.kept_arms:
        mine = [units for units in found if units.arm_id == arm.id]
        n = sum(units.claimed for units in mine)
        if n:
            counted[arm.place.policy] = Claims(n=n, failed=sum(units.failed for units in mine))
    return counted


def _draws(connection: Connection, record: ExperimentRecord, found: Sequence[RoutedUnits]) -> Draws:
    told = evidence.shares(connection, record.id, {units.version for units in found})
    versions = [
        (
            {str(arm_id): part / WHOLE_PPM for arm_id, part in shares.ppm.items()},
            {str(units.arm_id): units.units for units in found if units.version == version},
        )
        for version, shares in told.items()
    ]
    return Draws(
        units=sum(units.units for units in found),
        versions=len(versions),
        mismatch=ratio_mismatch(versions),
    )
