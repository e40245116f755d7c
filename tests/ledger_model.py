"""What a ledger of one experiment should say after any calls, in dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from bandit.core.errors import (
    BanditError,
    Expired,
    InvalidTransition,
    Killed,
    PositionLimit,
    Revoked,
)
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import Assignment
from bandit.core.outcomes import Outcome, declined, trade

CHAMPION = "prod"
START, LEAST, HOLD_OUT = 100_000, 20_000, 100_000
OPEN_MAX, WINDOW = 3, timedelta(hours=2)
UNITS = [f"u-{i}" for i in range(30)]
RESULTS = [Decimal(r) for r in ("0.0001", "-0.0001", "0.0003", "0")]
TARGETS = {
    ArmVerb.THROTTLE: ("throttled", {"active", "throttled"}),
    ArmVerb.HALT: ("halted", {"active", "throttled", "halted"}),
    ArmVerb.RESUME: ("active", {"active", "throttled", "halted"}),
    ArmVerb.RETIRE: ("retired", {"active", "throttled", "halted", "retired"}),
}


@dataclass
class Unit:
    """What became of one unit."""

    made: Assignment
    claimed_at: datetime | None = None
    first: Outcome | None = None
    told: Outcome | None = None
    revisions: int = 0
    marked_at: datetime | None = None


@dataclass
class Model:
    """What the ledger should say."""

    status: dict[str, str] = field(default_factory=dict)
    ppm: dict[str, int] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    epoch: int = 1
    champions: list[str] = field(default_factory=lambda: [CHAMPION])
    champion_epoch: int = 1
    crowned_by: str = "ENTER"
    killed: bool = False
    nights: set[object] = field(default_factory=set)

    def change(self, policy: str, part: int) -> None:
        """A challenger gets `part`, the champion the rest, and a new epoch begins."""
        self.ppm[policy] = part
        rest = sum(p for name, p in self.ppm.items() if name != self.champion)
        self.ppm[self.champion] = 1_000_000 - rest
        self.epoch += 1

    @property
    def champion(self) -> str:
        """Who is it now."""
        return self.champions[0]

    def crown(self, policy: str, *, kept: int, by: str) -> None:
        """Another champion takes over, and what was decided under the one before is void."""
        before = self.champion
        self.champions = [policy, *(name for name in self.champions if name != policy)]
        self.crowned_by = by
        self.change(before, kept)
        self.champion_epoch = self.epoch

    def returning(self, named: str | None) -> str | type[BanditError] | None:
        """Who takes over again, or why nobody does; None where it has done so."""
        if self.crowned_by == "ROLL_BACK" and named in (None, self.champion):
            return None
        earlier = [name for name in self.champions[1:] if self.status[name] != "retired"]
        if named is not None:
            return named if named in earlier else InvalidTransition
        if not earlier or self.status[earlier[0]] == "halted":
            return InvalidTransition
        return earlier[0]

    def claim(self, unit: Unit, now: datetime) -> datetime | type[BanditError]:
        """When the unit was first claimed, or why it may not be."""
        if self.killed:
            return Killed
        if self.status[unit.made.policy] != "active" or unit.made.epoch < self.champion_epoch:
            return Revoked
        if unit.claimed_at is None and now > unit.made.expires_at:
            return Expired
        if unit.claimed_at is None and len(self.open(now)) >= OPEN_MAX:
            return PositionLimit
        return unit.claimed_at or now

    def open(self, now: datetime) -> list[Unit]:
        """What takes a place: claimed, without an outcome, and heard of within the window."""
        return [
            unit
            for unit in self.units.values()
            if unit.claimed_at is not None
            and unit.told is None
            and max(unit.claimed_at, unit.marked_at or unit.claimed_at) + WINDOW >= now
        ]


def outcome_of(made: Assignment, result: Decimal | None, minutes: int) -> Outcome:
    """A trade with this return, or none."""
    if result is None:
        return declined(made.id)
    return trade(
        made.id,
        pnl=result * 100,
        return_ratio=result,
        opened_at=made.decided_at,
        closed_at=made.decided_at + timedelta(minutes=minutes),
        fees=Decimal("0.01"),
    )
