"""A ledger whose tenth week of 2026 can be added up by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from drift_runs import a_check, a_run
from ledger import CHALLENGER, NIGHT, UNGUARDED, change, feed, open_btc, scale
from sqlalchemy import Engine

from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import Verdict
from bandit.core.week import Week
from bandit.service import drift, killing

WEEK = Week(monday=date(2026, 3, 2))
MADE = datetime(2026, 3, 9, 6, tzinfo=UTC)
THURSDAY = datetime(2026, 3, 5, 12, tzinfo=UTC)

# What `live_a_week` comes to; an outcome's money is a thousand times its return.
OPENING = Decimal(10_010)  # the capital, and the 10 of Sunday
EARNED = Decimal(45)  # 5 on Monday, 20 - 10 on Tuesday, 30 on Wednesday


def live_a_week(engine: Engine) -> None:
    """Let `btc` live from the Sunday before the week to the Monday after it."""
    open_btc(engine, rules=UNGUARDED)
    feed(engine, "prod", ["0.01"], prefix="sunday")
    # A trade a minute after its decision: the first moment of the week, and the first after it.
    feed(engine, "prod", ["0.005"], now=WEEK.start - timedelta(minutes=1), prefix="first")
    scale(engine, now=NIGHT)
    feed(engine, "prod", ["0.02", "-0.01"], now=NIGHT + timedelta(hours=8), prefix="tuesday")
    feed(engine, CHALLENGER, ["0.03"], now=NIGHT + timedelta(days=1), prefix="wednesday")
    told: dict[str, Any] = {"now": THURSDAY, "actor": "cli:ann", "reason": "drill"}
    killing.kill(engine, ["usd"], cause=KillCause.HAND, **told)
    killing.release(engine, ["usd"], **told)
    failed = a_check(verdict=Verdict.FAIL)
    drift.record(
        engine, a_run(failed, a_check("atr"), checked_at=THURSDAY), now=THURSDAY, actor="test"
    )
    feed(engine, "prod", ["-0.004"], now=WEEK.end - timedelta(minutes=1), prefix="after")
    change(engine, ArmVerb.HALT, reason="looks odd", now=THURSDAY + timedelta(days=1))
