"""Heartbeats: the newest of each bot, replaced by the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.heartbeat import BotRecord, BreakerState, ErrorPoint, Heartbeat
from bandit.storage.engine import one, rows, run, uuids

_COLUMNS = (
    "bot",
    "account",
    "sent_at",
    "heard_at",
    "first_heard_at",
    "started_at",
    "running",
    "api_connected",
    "api_errors_total",
    "open_positions",
    "positions",
    "candle_seconds",
    "equity",
    "model_version",
    "model_trained_at",
    "last_trade_at",
)
_DOCUMENTS = ("candles", "breakers", "errors")
_PLACES = {"positions": "CAST(:positions AS uuid[])"}


def every(connection: Connection) -> list[BotRecord]:
    """Return what is known of every bot, in the order of their names."""
    return [_record(row) for row in rows(connection, "SELECT * FROM heartbeats ORDER BY bot")]


def locked(connection: Connection, bot: str) -> BotRecord | None:
    """Lock what is known of a bot and return it; None of one that was never heard."""
    row = one(connection, "SELECT * FROM heartbeats WHERE bot = :bot FOR UPDATE", bot=bot)
    return None if row is None else _record(row)


def count(connection: Connection) -> int:
    """Return how many bots are known."""
    found = one(connection, "SELECT count(*) AS n FROM heartbeats")
    assert found is not None
    return int(found["n"])


def write(connection: Connection, record: BotRecord) -> None:
    """Store what is known of a bot in the place of what was."""
    names = (*_COLUMNS, *_DOCUMENTS)
    values = [_PLACES.get(name, f":{name}") for name in _COLUMNS]
    values += [f"CAST(:{name} AS jsonb)" for name in _DOCUMENTS]
    later = ", ".join(f"{name} = excluded.{name}" for name in names if name != "bot")
    run(
        connection,
        f"INSERT INTO heartbeats ({', '.join(names)}) VALUES ({', '.join(values)}) "  # noqa: S608 - names are ours
        f"ON CONFLICT (bot) DO UPDATE SET {later}",
        **_values(record),
    )


def delete(connection: Connection, bot: str) -> bool:
    """Forget a bot; False where it is not known."""
    return bool(rows(connection, "DELETE FROM heartbeats WHERE bot = :bot RETURNING bot", bot=bot))


def _values(record: BotRecord) -> dict[str, Any]:
    beat = record.newest
    told = {name: getattr(beat, name) for name in _COLUMNS if hasattr(beat, name)}
    positions = None if beat.positions is None else uuids(beat.positions)
    candles = {symbol: moment.isoformat() for symbol, moment in beat.candles.items()}
    errors = [[point.at.isoformat(), point.total] for point in record.errors]
    return told | {
        "positions": positions,
        "heard_at": record.heard_at,
        "first_heard_at": record.first_heard_at,
        "candles": json.dumps(candles),
        "breakers": json.dumps({name: state.value for name, state in beat.breakers.items()}),
        "errors": json.dumps(errors),
    }


def _record(row: Mapping[str, Any]) -> BotRecord:
    told = {name: row[name] for name in _COLUMNS if name not in ("heard_at", "first_heard_at")}
    positions = None if told["positions"] is None else tuple(told["positions"])
    return BotRecord(
        newest=Heartbeat(
            candles={symbol: _moment(at) for symbol, at in row["candles"].items()},
            breakers={name: BreakerState(state) for name, state in row["breakers"].items()},
            **told | {"positions": positions},
        ),
        heard_at=row["heard_at"],
        first_heard_at=row["first_heard_at"],
        errors=tuple(ErrorPoint(at=_moment(at), total=total) for at, total in row["errors"]),
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
