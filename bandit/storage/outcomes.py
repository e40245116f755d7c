"""Outcomes: the first body of an assignment stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from bandit.core.model import UnitId
from bandit.core.outcomes import Outcome
from bandit.core.performance import ClosedTrade
from bandit.core.profit_factor import ProfitFactor
from bandit.storage.engine import one, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """An outcome with what its assignment adds to it."""

    outcome: Outcome
    arm_id: int
    unit_id: UnitId
    instrument: str
    decided_at: datetime
    expired: bool


def insert(connection: Connection, new: Sequence[OutcomeRow], *, now: datetime) -> set[UUID]:
    """Store the outcomes whose assignment has none yet; return the ids of those stored."""
    inserted = rows(
        connection,
        """
        INSERT INTO outcomes (
          assignment_id, arm_id, unit_id, instrument, no_trade, pnl, return_ratio, r_multiple, fees,
          slippage, size, worst_excursion, opened_at, closed_at, expired, body_hash, recorded_at)
        SELECT r.assignment_id, r.arm_id, r.unit_id, r.instrument, r.no_trade, r.pnl,
               r.return_ratio, r.r_multiple, r.fees, r.slippage, r.size, r.worst_excursion,
               r.opened_at, r.closed_at, r.expired, decode(r.body_hash, 'hex'), :now
        FROM json_to_recordset(CAST(:rows AS json)) AS r (
          assignment_id uuid, arm_id bigint, unit_id text, instrument text, no_trade boolean,
          pnl numeric, return_ratio numeric, r_multiple numeric, fees numeric, slippage numeric,
          size numeric, worst_excursion numeric, opened_at timestamptz, closed_at timestamptz,
          expired boolean, body_hash text)
        ORDER BY r.assignment_id
        ON CONFLICT DO NOTHING RETURNING assignment_id
        """,
        rows=json.dumps([_json_row(row) for row in new], allow_nan=False),
        now=now,
    )
    return {row["assignment_id"] for row in inserted}


def stored(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, tuple[bytes, datetime, bool]]:
    """Return body hash, time of recording and expiry flag of the outcomes among `ids`."""
    found = rows(
        connection,
        "SELECT assignment_id, body_hash, recorded_at, expired FROM outcomes "
        "WHERE assignment_id = ANY(:ids)",
        ids=list(ids),
    )
    return {
        row["assignment_id"]: (bytes(row["body_hash"]), row["recorded_at"], row["expired"])
        for row in found
    }


def newest_trades(connection: Connection, arm_id: int, count: int) -> list[ClosedTrade]:
    """Return an arm's newest `count` trades in closing order."""
    found = rows(
        connection,
        "SELECT closed_at, unit_id, return_ratio FROM outcomes "
        "WHERE arm_id = :arm_id AND NOT no_trade "
        "ORDER BY closed_at DESC, unit_id DESC LIMIT :count",
        arm_id=arm_id,
        count=count,
    )
    return [_trade(row) for row in reversed(found)]


def trades_after(
    connection: Connection, arm_id: int, last: tuple[datetime, str] | None
) -> list[ClosedTrade]:
    """Return an arm's trades that closed after `last`, in closing order."""
    closed_at, unit_id = last or (None, None)
    found = rows(
        connection,
        "SELECT closed_at, unit_id, return_ratio FROM outcomes "
        "WHERE arm_id = :arm_id AND NOT no_trade AND (CAST(:closed_at AS timestamptz) IS NULL "
        "OR (closed_at, unit_id) > (CAST(:closed_at AS timestamptz), CAST(:unit_id AS text))) "
        "ORDER BY closed_at, unit_id",
        arm_id=arm_id,
        closed_at=closed_at,
        unit_id=unit_id,
    )
    return [_trade(row) for row in found]


def champion_over_window(connection: Connection, arm_id: int) -> ProfitFactor:
    """Return the champion's profit factor over a challenger's own window and instruments."""
    found = one(connection, "SELECT * FROM champion_over_window(:arm_id)", arm_id=arm_id)
    assert found is not None
    return ProfitFactor.from_sums(
        gross_profit=found["gain"],
        gross_loss=found["loss"],
        n=found["n"],
        n_losses=found["n_losses"],
    )


def _trade(row: Mapping[str, Any]) -> ClosedTrade:
    return ClosedTrade(
        closed_at=row["closed_at"], unit=row["unit_id"], result=float(row["return_ratio"])
    )


def _json_row(row: OutcomeRow) -> dict[str, Any]:
    outcome = row.outcome
    # A policy that declined is placed in time by its decision.
    opened_at = outcome.opened_at or row.decided_at
    closed_at = outcome.closed_at or row.decided_at
    numbers = ("pnl", "return_ratio", "r_multiple", "fees", "slippage", "size", "worst_excursion")
    return {
        "assignment_id": str(outcome.assignment_id),
        "arm_id": row.arm_id,
        "unit_id": row.unit_id,
        "instrument": row.instrument,
        "no_trade": outcome.no_trade,
        "opened_at": opened_at.isoformat(),
        "closed_at": closed_at.isoformat(),
        "expired": row.expired,
        "body_hash": outcome.body_hash().hex(),
        **{name: _text(getattr(outcome, name)) for name in numbers},
    }


def _text(value: object) -> str | None:
    return None if value is None else f"{value:f}"
