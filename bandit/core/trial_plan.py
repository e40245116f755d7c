"""What a made-up experiment consists of, and all that chance decides of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from bandit.core.limits import Limits
from bandit.core.model import NIGHT_HOUR, PolicyName, Profile, Promoter, Strategy, UnitId
from bandit.core.reading import Rules
from bandit.core.simulation import HypotheticalArm, Luck, Market, Setting, returns

Integers = NDArray[np.int64]

CHAMPION: Final = PolicyName("champion")
EXPERIMENT: Final = "trial"
INSTRUMENT: Final = "MARKET"
OPENED: Final = datetime(2026, 1, 1, tzinfo=UTC)
SCALE: Final = 10**12
"""Steps of a return: what the ledger keeps of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """What is made up: the market, the arms, and the rules they live under.

    A challenger that is several arms is each of them in turn, for `dwell` opportunities: an edge
    that comes and goes. `equity_fraction` is what a trade puts at stake, of the whole account. On a
    share `agreement` of the opportunities a challenger's luck is the champion's. `on_paper` tells
    what every arm would have earned on every one.
    """

    setting: Setting
    champion: HypotheticalArm
    challengers: Mapping[PolicyName, tuple[HypotheticalArm, ...]]
    profile: Profile = Profile.GUARDED
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    days: int = 90
    per_day: int = 20
    delay_days: int = 0
    equity_fraction: float = 0.1
    dwell: int = 500
    strategy: Strategy = Strategy.RAMP
    agreement: float = 0.0
    on_paper: bool = False

    def __post_init__(self) -> None:
        """Refuse a plan nothing could follow."""
        for name, low in (("days", 1), ("per_day", 1), ("delay_days", 0), ("dwell", 1)):
            if getattr(self, name) < low:
                rule = f"must be at least {low}"
                raise InvalidInput(field=name, rule=rule, found=getattr(self, name))
        if not 0.0 < self.equity_fraction <= 1.0:
            rule = "must be above 0 and at most 1"
            raise InvalidInput(field="equity_fraction", rule=rule, found=self.equity_fraction)
        if not 0.0 <= self.agreement <= 1.0:
            rule = "must lie in 0..1"
            raise InvalidInput(field="agreement", rule=rule, found=self.agreement)
        if CHAMPION in self.challengers or not all(self.challengers.values()):
            rule = f"must be at least one arm each, and none called {CHAMPION}"
            raise InvalidInput(field="challengers", rule=rule, found=sorted(self.challengers))
        if self.rules.promote is not Promoter.PERSON:
            rule = "must be person: a made-up experiment keeps its champion"
            raise InvalidInput(field="promote", rule=rule, found=self.rules.promote)

    @property
    def policies(self) -> list[PolicyName]:
        """Every arm, the champion last: the order of all results."""
        return [*self.challengers, CHAMPION]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """All that chance decides of a trial: the salt that routes, and what each arm would earn.

    `results` has the shape (arms, days, opportunities a day), in steps of a return.
    """

    salt: bytes
    results: Integers

    @classmethod
    def drawn(cls, plan: TrialPlan, *, seed: int) -> Fate:
        """Draw the fate of a plan: always the same one for a seed."""
        rng = np.random.default_rng(seed)
        count = plan.days * plan.per_day
        market = Market.drawn(plan.setting, runs=1, opportunities=count, rng=rng)
        arms = (*plan.challengers.values(), (plan.champion,))
        luck, spells = [], []
        for turns in arms:
            luck.append(Luck.drawn(market, rng))
            begun = rng.integers(plan.dwell * len(turns))
            spells.append((np.arange(count) + begun) // plan.dwell % len(turns))
        salt = rng.bytes(32)
        for i in range(len(plan.challengers)):
            luck[i] = luck[-1].shared_with(luck[i], share=plan.agreement, rng=rng)
        drawn = []
        for turns, spell, own in zip(arms, spells, luck, strict=True):
            variants = np.concatenate([returns(arm, market, own) for arm in turns])
            drawn.append(variants[spell, np.arange(count)])
        steps = np.rint(np.stack(drawn) * SCALE).astype(np.int64)
        return cls(salt=salt, results=steps.reshape(len(drawn), plan.days, plan.per_day))


def unit_of(day: int, place: int) -> UnitId:
    """Name the unit of an opportunity."""
    return UnitId(f"{day:05}-{place:05}")


def decided_at(day: int, place: int) -> datetime:
    """When an opportunity is decided: seconds after noon."""
    return OPENED + timedelta(days=day, hours=12, seconds=place)


def closed_at(plan: TrialPlan, day: int, place: int) -> datetime:
    """When its trade closes: in the evening, in the order of the decisions."""
    return OPENED + timedelta(days=day + plan.delay_days, hours=20, seconds=place)


def told_at(day: int) -> datetime:
    """When the outcomes that a day brings are told."""
    return OPENED + timedelta(days=day, hours=23)


def night_of(day: int) -> datetime:
    """When the night after a day is decided."""
    return OPENED + timedelta(days=day + 1, hours=NIGHT_HOUR)
