"""Lives of experiments that were never lived, for tests of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from bandit.core.model import ArmStatus, PolicyName, Rung
from bandit.service.charting import ArmLife, Life, NightSeen, Point, Version

OPENED = datetime(2026, 3, 1, tzinfo=UTC)
PROOF = 4.0


def day(number: float) -> datetime:
    """So many days after the opening."""
    return OPENED + timedelta(days=number)


def version(since: float, champion: str = "old", **parts: float) -> Version:
    """An allocation of percents; the champion has the rest."""
    held = {PolicyName(name): part / 100.0 for name, part in parts.items()}
    held[PolicyName(champion)] = 1.0 - sum(held.values())
    return Version(since=day(since), champion=PolicyName(champion), parts=held)


def seen(
    on: float,
    live: float,
    *,
    paper: float | None = None,
    proof: float = PROOF,
    rung: Rung = Rung.UNPROVEN,
) -> NightSeen:
    """Where the night of a day found a challenger."""
    return NightSeen(at=day(on), live=live, paper=paper, proof=proof, rung=rung)


def points(earned: Mapping[float, float]) -> tuple[Point, ...]:
    """A curve by day, in percent."""
    return tuple(Point(at=day(on), earned=value / 100.0) for on, value in earned.items())


def arm(
    policy: str,
    *nights: NightSeen,
    earned: Mapping[float, float] | None = None,
    status: ArmStatus = ArmStatus.ACTIVE,
) -> ArmLife:
    """What became of an arm."""
    return ArmLife(
        policy=PolicyName(policy),
        status=status,
        joined_at=OPENED,
        earned=points(earned or {0: 0.0}),
        nights=nights,
    )


def life(
    versions: Sequence[Version],
    arms: Sequence[ArmLife],
    *,
    until: float,
    earned: Mapping[float, float] | None = None,
) -> Life:
    """The life of `btc`."""
    return Life(
        experiment="btc",
        account="usd",
        opened_at=OPENED,
        until=day(until),
        versions=tuple(versions),
        arms=tuple(arms),
        earned=points(earned or {0: 0.0}),
    )
