"""Outcomes: the first body of an assignment stands, corrections are revisions beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Connection, text

from bandit.core.live_gap import TradeSample, slippage_ratio
from bandit.core.merits import MarkedTrade
from bandit.core.model import UnitId
from bandit.core.outcomes import Flags, Outcome
from bandit.core.performance import ClosedTrade, in_closing_order
from bandit.core.profit_factor import ProfitFactor
from bandit.storage.archives import StoredBody
from bandit.storage.engine import one, rows, run, uuids

_ROWS_AT_ONCE = 2000
_BEFORE_ALL = datetime(1999, 1, 1, tzinfo=UTC)
_NUMBERS = ("pnl", "return_ratio", "r_multiple", "fees", "slippage", "size", "worst_excursion")


class OutcomeRow(msgspec.Struct, frozen=True, gc=False):
    """An outcome with what its assignment adds to it."""

    outcome: Outcome
    arm_id: int
    unit_id: UnitId
    instrument: str
    decided_at: datetime
    flags: Flags
    body_hash: bytes

    @property
    def trade(self) -> ClosedTrade | None:
        """The closed trade it tells of; None when the policy declined."""
        if self.outcome.closed_at is None:
            return None
        return ClosedTrade(
            closed_at=self.outcome.closed_at,
            unit=self.unit_id,
            result=float(self.outcome.return_ratio),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeVersion:
    """The newest version of an outcome: `revision` 0 is the one that was told first."""

    row: OutcomeRow
    revision: int
    recorded_at: datetime


class _Written(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An outcome as the database reads it; decimals travel as text, so no digit is lost."""

    assignment_id: UUID
    arm_id: int
    unit_id: str
    instrument: str
    no_trade: bool
    pnl: Decimal
    return_ratio: Decimal
    opened_at: datetime
    closed_at: datetime
    expired: bool
    unclaimed: bool
    body_hash: str
    r_multiple: Decimal | None = None
    fees: Decimal | None = None
    slippage: Decimal | None = None
    size: Decimal | None = None
    worst_excursion: Decimal | None = None


def insert(connection: Connection, new: Sequence[OutcomeRow], *, now: datetime) -> set[UUID]:
    """Store the outcomes whose assignment has none yet; return the ids of those that had one."""
    batch = msgspec.json.encode([_written(row) for row in new]).decode()
    statement = "SELECT * FROM commit_outcomes(%s::json, %s)"
    return {found[0] for found in connection.exec_driver_sql(statement, (batch, now))}


def stored(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, StoredBody]:
    """Return what there is of the outcomes among `ids`."""
    found = rows(
        connection,
        "SELECT assignment_id, body_hash, recorded_at, expired, unclaimed FROM outcomes "
        "WHERE assignment_id = ANY(CAST(:ids AS uuid[]))",
        ids=uuids(ids),
    )
    return {
        row["assignment_id"]: StoredBody(
            bytes(row["body_hash"]), row["recorded_at"], Flags(row["expired"], row["unclaimed"])
        )
        for row in found
    }


def newest_version(connection: Connection, assignment_id: UUID) -> OutcomeVersion | None:
    """Return the version of an outcome that counts; None when there is no outcome."""
    found = one(
        connection,
        "SELECT c.*, s.decided_at FROM current_outcomes c "
        "JOIN assignments s ON s.id = c.assignment_id WHERE c.assignment_id = :id",
        id=assignment_id,
    )
    if found is None:
        return None
    return OutcomeVersion(
        row=_row(found), revision=found["revision"], recorded_at=found["recorded_at"]
    )


def append_revision(
    connection: Connection, made: OutcomeVersion, *, actor: str, reason: str
) -> None:
    """Append a version to an outcome; the database refuses one that does not follow."""
    written = msgspec.structs.asdict(_written(made.row))
    hashed = written.pop("body_hash")
    columns = ", ".join(written)
    values = ", ".join(f":{name}" for name in written)
    run(
        connection,
        f"INSERT INTO outcome_revisions ({columns}, revision, body_hash, recorded_at, actor, "  # noqa: S608 - names are ours
        f"reason) VALUES ({values}, :revision, decode(:hashed, 'hex'), :now, :actor, :reason)",
        **written,
        hashed=hashed,
        revision=made.revision,
        now=made.recorded_at,
        actor=actor,
        reason=reason,
    )


def _newest(columns: str, *, arm: str = "%(arm)s") -> str:
    """`current_outcomes` spelt out: the planner hands no LIMIT into the branches of a view."""
    return f"""
      (SELECT {columns} FROM outcomes o
       WHERE o.arm_id = {arm} AND NOT o.no_trade AND NOT EXISTS (
         SELECT FROM outcome_revisions r WHERE r.assignment_id = o.assignment_id OFFSET 0)
       ORDER BY o.closed_at DESC, o.unit_id DESC LIMIT %(most)s)
      UNION ALL
      (SELECT {columns} FROM outcome_revisions v
       WHERE v.arm_id = {arm} AND NOT v.no_trade AND NOT EXISTS (
         SELECT FROM outcome_revisions r
         WHERE r.assignment_id = v.assignment_id AND r.revision = v.revision + 1 OFFSET 0)
       ORDER BY v.closed_at DESC, v.unit_id DESC LIMIT %(most)s)
      ORDER BY closed_at DESC, unit_id DESC LIMIT %(most)s
    """  # noqa: S608 - names are ours


_TRADE = "closed_at, unit_id, CAST(return_ratio AS double precision) AS result"
NEWEST_TRADES: Final = _newest(_TRADE)
_NEWEST_OF_EACH: Final = f"""
  SELECT a.id, t.* FROM unnest(%(arms)s::bigint[]) AS a(id)
  CROSS JOIN LATERAL ({_newest(_TRADE, arm="a.id")}) AS t
"""  # noqa: S608 - names are ours
_NEWEST_TOLD: Final = f"""
  SELECT a.id, t.return_ratio, t.pnl, t.slippage FROM unnest(%(arms)s::bigint[]) AS a(id)
  CROSS JOIN LATERAL (
    {_newest("closed_at, unit_id, return_ratio, pnl, slippage", arm="a.id")}) AS t
"""  # noqa: S608 - names are ours
_NEWEST_MARKED: Final = _newest("closed_at, unit_id, return_ratio, opened_at, worst_excursion")


def newest_trades(connection: Connection, arm_id: int, count: int) -> list[ClosedTrade]:
    """Return an arm's newest `count` trades in closing order, each in its newest version."""
    found = connection.exec_driver_sql(NEWEST_TRADES, {"arm": arm_id, "most": count}).all()
    return [_trade(*row) for row in reversed(found)]


def newest_trades_of(
    connection: Connection, arm_ids: Sequence[int], count: int
) -> dict[int, list[ClosedTrade]]:
    """Return the same of every one of these arms, in one statement."""
    values = {"arms": list(arm_ids), "most": count}
    found: dict[int, list[ClosedTrade]] = {arm_id: [] for arm_id in arm_ids}
    for arm_id, *told in connection.exec_driver_sql(_NEWEST_OF_EACH, values):
        found[arm_id].append(_trade(*told))
    return {arm_id: in_closing_order(trades) for arm_id, trades in found.items()}


def newest_samples(
    connection: Connection, arm_ids: Sequence[int], count: int
) -> dict[int, TradeSample]:
    """Return what there is to compare of every arm's newest `count` trades, in one statement."""
    told: dict[int, tuple[list[float], list[float]]] = {arm_id: ([], []) for arm_id in arm_ids}
    values = {"arms": list(arm_ids), "most": count}
    for arm_id, earned, pnl, lost in connection.exec_driver_sql(_NEWEST_TOLD, values):
        returns, slippages = told[arm_id]
        returns.append(float(earned))
        slipped = None if lost is None else slippage_ratio(lost, pnl=pnl, return_ratio=earned)
        if slipped is not None:
            slippages.append(slipped)
    return {arm_id: TradeSample.of(*both) for arm_id, both in told.items()}


def newest_marked(connection: Connection, arm_id: int, count: int) -> list[MarkedTrade]:
    """Return the same with how their positions stood, each with 1 paid at entry."""
    found = connection.exec_driver_sql(_NEWEST_MARKED, {"arm": arm_id, "most": count}).all()
    return [_marked(*row) for row in reversed(found)]


def trades_after(
    connection: Connection, arm_id: int, last: tuple[datetime, str] | None
) -> Iterator[ClosedTrade]:
    """Stream an arm's trades that closed after `last`, in closing order and newest version."""
    closed_at, unit_id = last or (_BEFORE_ALL, "")
    statement = text(
        f"SELECT {_TRADE} FROM current_outcomes "  # noqa: S608 - names are ours
        "WHERE arm_id = :arm_id AND NOT no_trade "
        "AND (closed_at, unit_id) > (:closed_at, CAST(:unit_id AS text)) "
        "ORDER BY closed_at, unit_id"
    )
    place = {"arm_id": arm_id, "closed_at": closed_at, "unit_id": unit_id}
    options = {"yield_per": _ROWS_AT_ONCE}
    with connection.execute(statement, place, execution_options=options) as result:
        for row in result:
            yield _trade(*row)


def results_between(
    connection: Connection, arm_id: int, *, since: datetime, until: datetime
) -> list[float]:
    """Return what the trades earned that closed from `since` to before `until`, in their order."""
    found = rows(
        connection,
        f"SELECT {_TRADE} FROM current_outcomes "  # noqa: S608 - names are ours
        "WHERE arm_id = :arm_id AND NOT no_trade AND closed_at >= :since AND closed_at < :until "
        "ORDER BY closed_at, unit_id",
        arm_id=arm_id,
        since=since,
        until=until,
    )
    return [row["result"] for row in found]


def champion_over_windows(
    connection: Connection, arm_ids: Sequence[int]
) -> dict[int, ProfitFactor]:
    """Return the champion's profit factor over each challenger's own window and instruments."""
    found = rows(
        connection,
        "SELECT a.id, w.* FROM unnest(CAST(:arm_ids AS bigint[])) AS a(id)"
        " CROSS JOIN LATERAL champion_over_window(a.id) AS w",
        arm_ids=list(arm_ids),
    )
    return {
        row["id"]: ProfitFactor.from_sums(
            gross_profit=row["gain"],
            gross_loss=row["loss"],
            n=row["n"],
            n_losses=row["n_losses"],
        )
        for row in found
    }


def _trade(closed_at: datetime, unit_id: str, result: float) -> ClosedTrade:
    return ClosedTrade(closed_at=closed_at, unit=unit_id, result=result)


def _marked(
    closed_at: datetime,
    unit_id: str,
    return_ratio: Decimal,
    opened_at: datetime,
    worst: Decimal | None,
) -> MarkedTrade:
    return MarkedTrade(
        closed_at=closed_at,
        unit=unit_id,
        pnl=return_ratio,
        opened_at=opened_at,
        entry_value=Decimal(1),
        worst_excursion=None if worst is None else float(worst),
    )


def _written(row: OutcomeRow) -> _Written:
    outcome = row.outcome
    return _Written(
        outcome.assignment_id,
        row.arm_id,
        row.unit_id,
        row.instrument,
        outcome.no_trade,
        outcome.pnl,
        outcome.return_ratio,
        # A policy that declined is placed in time by its decision.
        outcome.opened_at or row.decided_at,
        outcome.closed_at or row.decided_at,
        row.flags.expired,
        row.flags.unclaimed,
        row.body_hash.hex(),
        outcome.r_multiple,
        outcome.fees,
        outcome.slippage,
        outcome.size,
        outcome.worst_excursion,
    )


def outcome_of(found: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a row of the ledger tells."""
    declined = found["no_trade"]
    return Outcome(
        assignment_id=found["assignment_id"],
        no_trade=declined,
        opened_at=None if declined else found["opened_at"],
        closed_at=None if declined else found["closed_at"],
        **{name: found[name] for name in _NUMBERS},
    )


def _row(found: Mapping[str, Any]) -> OutcomeRow:
    return OutcomeRow(
        outcome_of(found),
        found["arm_id"],
        UnitId(found["unit_id"]),
        found["instrument"],
        found["decided_at"],
        Flags(found["expired"], found["unclaimed"]),
        bytes(found["body_hash"]),
    )
