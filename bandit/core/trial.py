"""An experiment made up from start to end: hypothetical arms, and the nights of production.

Units are routed, results scored and nights decided by the functions that the service calls. Every
opportunity of a day is a trade; outcomes are told in one batch before the night, `delay_days` after
their day. So a trial can be told to the service too, and must end the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandit.core import checklist, night
from bandit.core.allocators import registry
from bandit.core.allocators.posterior import Moments
from bandit.core.allocators.strategy import DayResults
from bandit.core.errors import InvalidInput
from bandit.core.evidence import Earned, Tally, Terms, rewards, routed_scores, terms_of
from bandit.core.ladder import ArmEvidence, Cohort, Family, Standing, families, matured
from bandit.core.lifecycle import after
from bandit.core.limits import ArmPlace, Limits, opening, with_part
from bandit.core.model import (
    Allocation,
    ArmMode,
    ArmRole,
    ArmStatus,
    PolicyName,
    Ppm,
    Profile,
    Rung,
    Strategy,
    UnitId,
    Verdict,
)
from bandit.core.performance import ClosedTrade, window_numbers
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, Rules
from bandit.core.routing import partition, repartition, router
from bandit.core.simulation import HypotheticalArm, Luck, Market, Setting, returns

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CHAMPION: Final = PolicyName("champion")
EXPERIMENT: Final = "trial"
INSTRUMENT: Final = "MARKET"
OPENED: Final = datetime(2026, 1, 1, tzinfo=UTC)
NIGHT_HOUR: Final = 2
SCALE: Final = 10**12
"""Steps of a return: what the ledger keeps of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """What is made up: the market, the arms, and the rules they live under.

    A challenger that is several arms is each of them in turn, for `dwell` opportunities: an edge
    that comes and goes. `acts` lets the checklist throttle and halt. `equity_fraction` is what a
    trade puts at stake, of the whole account.
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
    acts: bool = True
    strategy: Strategy = Strategy.RAMP

    def __post_init__(self) -> None:
        """Refuse a plan nothing could follow."""
        for name, low in (("days", 1), ("per_day", 1), ("delay_days", 0), ("dwell", 1)):
            if getattr(self, name) < low:
                rule = f"must be at least {low}"
                raise InvalidInput(field=name, rule=rule, found=getattr(self, name))
        if not 0.0 < self.equity_fraction <= 1.0:
            rule = "must be above 0 and at most 1"
            raise InvalidInput(field="equity_fraction", rule=rule, found=self.equity_fraction)
        if CHAMPION in self.challengers or not all(self.challengers.values()):
            rule = f"must be at least one arm each, and none called {CHAMPION}"
            raise InvalidInput(field="challengers", rule=rule, found=sorted(self.challengers))

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
        drawn = []
        for turns in (*plan.challengers.values(), (plan.champion,)):
            luck = Luck.drawn(market, rng)
            spell = (np.arange(count) + rng.integers(plan.dwell * len(turns))) // plan.dwell
            variants = np.concatenate([returns(arm, market, luck) for arm in turns])
            drawn.append(variants[spell % len(turns), np.arange(count)])
        steps = np.rint(np.stack(drawn) * SCALE).astype(np.int64)
        return cls(salt=rng.bytes(32), results=steps.reshape(len(drawn), plan.days, plan.per_day))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How it went, by day: arms in the order of the plan's `policies`.

    `ppm` has the shape (days + 1, arms): what each held on a day, and after the last night; `rungs`
    and `statuses` what it was after each night. `chosen` says which arm decided each opportunity,
    `earned` what was earned on a day, in returns at nominal size, and `alone`, of the shape
    (arms, days), what each arm would have earned by itself.
    """

    ppm: Integers
    rungs: tuple[tuple[Rung, ...], ...]
    statuses: tuple[tuple[ArmStatus, ...], ...]
    chosen: Integers
    earned: Floats
    alone: Floats


def unit_of(day: int, place: int) -> UnitId:
    """Name the unit of an opportunity."""
    return UnitId(f"{day:05}-{place:05}")


def decided_at(day: int, place: int) -> datetime:
    """When an opportunity is decided: seconds after noon."""
    return OPENED + timedelta(days=day, hours=12, seconds=place)


def closed_at(plan: TrialPlan, day: int, place: int) -> datetime:
    """When its trade closes: in the evening, in the order of the decisions."""
    return OPENED + timedelta(days=day + plan.delay_days, hours=20, seconds=place)


def night_of(day: int) -> datetime:
    """When the night after a day is decided."""
    return OPENED + timedelta(days=day + 1, hours=NIGHT_HOUR)


def run(plan: TrialPlan, fate: Fate) -> Trial:
    """Let a plan meet its fate."""
    state = _State(plan, fate)
    for day in range(plan.days):
        state.decide(day)
        if day >= plan.delay_days:
            state.tell(day - plan.delay_days)
        state.night(day)
    return state.trial()


class _State:
    """An experiment under way."""

    def __init__(self, plan: TrialPlan, fate: Fate) -> None:
        self.plan, self.fate = plan, fate
        self.ppm = self._ordered(opening(CHAMPION, list(plan.challengers), limits=plan.limits))
        self.arms = {
            policy: _Arm(plan, ArmRole.CHAMPION if policy == CHAMPION else ArmRole.CHALLENGER)
            for policy in plan.policies
        }
        self.family = families(dict.fromkeys(plan.challengers, OPENED), ())
        self.partition = partition(self.ppm)
        self.terms: Terms | None = None
        self.held: list[Mapping[PolicyName, Ppm]] = [self.ppm]
        self.chosen: list[Integers] = []
        self.terms_of_day: list[Terms | None] = []
        self.after: list[tuple[list[Rung], list[ArmStatus]]] = []

    def decide(self, day: int) -> None:
        """Route a day's opportunities."""
        places = {policy: i for i, policy in enumerate(self.plan.policies)}
        route = router(
            self.fate.salt,
            experiment=EXPERIMENT,
            allocation=Allocation(version=1, champion=CHAMPION, ppm=self.ppm),
            partition=self.partition,
        )
        units = (unit_of(day, place) for place in range(self.plan.per_day))
        self.chosen.append(np.array([places[found.policy] for found in route(units)]))
        self.terms_of_day.append(self.terms)

    def tell(self, day: int) -> None:
        """Learn what a day's decisions have earned."""
        chosen, policies = self.chosen[day], self.plan.policies
        results = self.fate.results[chosen, day, np.arange(self.plan.per_day)]
        for i, policy in enumerate(policies):
            mine = np.flatnonzero(chosen == i)
            self.arms[policy].add(day, mine.tolist(), results[mine].tolist())
        terms = self.terms_of_day[day]
        if terms is None:
            return
        rewarded = rewards(results / SCALE / terms.unit_of(INSTRUMENT), terms)
        held, champion = self.held[day], len(policies) - 1
        for i, policy in enumerate(policies[:-1]):
            concerned = (chosen == i) | (chosen == champion)
            if held[policy] and concerned.any():
                picked = chosen[concerned] == i
                share = held[policy] / (held[policy] + held[CHAMPION])
                scores = routed_scores(rewarded[concerned], picked, share)
                tally = Tally.of(scores, chosen=picked)
                date = decided_at(day, 0).date()
                self.arms[policy].cohorts.append(Cohort(day=date, tally=tally))

    def night(self, day: int) -> None:
        """Decide the next day's allocation: checklist, terms, strategy, limits."""
        plan, now = self.plan, night_of(day)
        readings = [self._reading(policy, now=now) for policy in plan.policies]
        if plan.acts and plan.profile is not Profile.OBSERVE:
            for reading, row in checklist.actions(readings, plan.rules.checklist):
                self._stop(reading.place, row)
        champion = self.arms[CHAMPION]
        self.terms = terms_of({INSTRUMENT: champion.earned}) or self.terms
        arms = [
            night.judged(replace(r, place=self._place(r.place.policy)), rules=plan.rules)
            for r in readings
        ]
        if plan.profile is not Profile.OBSERVE:
            made = night.propose(
                arms,
                rules=plan.rules,
                limits=plan.limits,
                profile=plan.profile,
                strategy=plan.strategy,
                seed=night.night_seed(self.fate.salt, now.date()),
            )
            self._hold(made.ppm)
            for arm in arms:
                self.arms[arm.reading.place.policy].rung = arm.reading.place.rung
        self.held.append(self.ppm)
        known = [self.arms[policy] for policy in plan.policies]
        self.after.append(([arm.rung for arm in known], [arm.status for arm in known]))

    def trial(self) -> Trial:
        """Return how it went."""
        chosen, results = np.stack(self.chosen), self.fate.results / SCALE
        days, places = np.indices(chosen.shape)
        return Trial(
            ppm=np.array([[held[policy] for policy in self.plan.policies] for held in self.held]),
            rungs=tuple(tuple(rungs) for rungs, _ in self.after),
            statuses=tuple(tuple(statuses) for _, statuses in self.after),
            chosen=chosen,
            earned=results[chosen, days, places].sum(axis=1),
            alone=results.sum(axis=2),
        )

    def _stop(self, place: ArmPlace, row: checklist.ChecklistRow) -> None:
        arm = self.arms[place.policy]
        places = [self._place(policy) for policy in self.plan.policies]
        arm.status = after(row.action, status=place.status, role=place.role)
        self._hold(with_part(places, place.policy, 0))

    def _hold(self, ppm: Mapping[PolicyName, Ppm]) -> None:
        if ppm != self.ppm:
            self.ppm = self._ordered(ppm)
            self.partition = repartition(self.partition, self.ppm)

    def _ordered(self, ppm: Mapping[PolicyName, Ppm]) -> Mapping[PolicyName, Ppm]:
        # As in the ledger, by the age of the policies: the champion came first.
        return {policy: ppm[policy] for policy in (CHAMPION, *self.plan.challengers)}

    def _place(self, policy: PolicyName) -> ArmPlace:
        arm = self.arms[policy]
        return ArmPlace(
            policy=policy,
            role=arm.role,
            status=arm.status,
            mode=ArmMode.LIVE,
            ppm=self.ppm[policy],
            trades=arm.n,
            rung=arm.rung,
        )

    def _reading(self, policy: PolicyName, *, now: datetime) -> ArmReading:
        arm, rule = self.arms[policy], self.plan.rules.checklist
        fraction = self.plan.equity_fraction
        long = window_numbers(arm.newest, window=rule.long_window, nominal_fraction=fraction)
        short = window_numbers(arm.newest, window=rule.window, nominal_fraction=fraction)
        assert long.drawdown_percent is not None
        standing = None
        if arm.role is ArmRole.CHALLENGER:
            standing = arm.standing(self.family[policy], self.plan.rules, now=now)
        since = arm.newest[0].closed_at if arm.newest else None
        return ArmReading(
            place=self._place(policy),
            pf_short=short.profit_factor,
            pf_long=long.profit_factor,
            dd_long_percent=long.drawdown_percent,
            pf_prod=self.arms[CHAMPION].factor_since(since),
            standing=standing,
            moments=arm.moments(self.arms[CHAMPION].earned, now=now),
        )


class _Arm:
    """What an arm has earned so far, in the forms that nights read."""

    def __init__(self, plan: TrialPlan, role: ArmRole) -> None:
        self.plan, self.role = plan, role
        self.status, self.rung = ArmStatus.ACTIVE, Rung.UNPROVEN
        self.newest: deque[ClosedTrade] = deque(maxlen=plan.rules.checklist.long_window)
        self.closed: list[datetime] = []
        # Gains, losses and losers of all trades up to each, and before the first.
        self.sums: list[tuple[int, int, int]] = [(0, 0, 0)]
        self.squares = 0
        self.days: dict[date, tuple[int, int]] = {}
        self.cohorts: list[Cohort] = []

    @property
    def n(self) -> int:
        return len(self.closed)

    @property
    def earned(self) -> Earned:
        gain, loss, _ = self.sums[-1]
        return Earned(n=self.n, gain=gain / SCALE, loss=loss / SCALE)

    def add(self, day: int, places: Sequence[int], results: Sequence[int]) -> None:
        for place, result in zip(places, results, strict=True):
            at = closed_at(self.plan, day, place)
            self.closed.append(at)
            self.squares += result * result
            n, total = self.days.get(at.date(), (0, 0))
            self.days[at.date()] = (n + 1, total + result)
            gain, loss, losers = self.sums[-1]
            self.sums.append((gain + max(result, 0), loss + max(-result, 0), losers + (result < 0)))
            trade = ClosedTrade(closed_at=at, unit=unit_of(day, place), result=result / SCALE)
            self.newest.append(trade)

    def factor_since(self, since: datetime | None) -> ProfitFactor:
        """Return the profit factor of the trades that closed since then; of none without a time."""
        first = self.n if since is None else bisect_left(self.closed, since)
        before, now = self.sums[first], self.sums[-1]
        return ProfitFactor.from_sums(
            gross_profit=now[0] - before[0],
            gross_loss=now[1] - before[1],
            n=self.n - first,
            n_losses=now[2] - before[2],
            scale=SCALE,
        )

    def moments(self, champion: Earned, *, now: datetime) -> Moments | None:
        """Return what the strategy counts of the results, in units of the champion's."""
        if self.plan.strategy is Strategy.RAMP or not champion.n:
            return None
        unit = (champion.gain + champion.loss) / champion.n
        days = [
            DayResults(days_ago=(now.date() - at).days, n=n, total=total / SCALE / unit)
            for at, (n, total) in self.days.items()
        ]
        second = self.squares / SCALE**2 / unit**2 / self.n if self.n else 0.0
        rule = registry.strategy(self.plan.strategy.value, self.plan.rules.allocator)
        return rule.weigh(days, second_moment=second)

    def standing(self, family: Family, rules: Rules, *, now: datetime) -> Standing:
        known = ArmEvidence(
            trades=self.n,
            routed=matured(self.cohorts, now=now, rule=rules.ladder),
            shadow=None,
            fill_gap=Verdict.INCONCLUSIVE,
        )
        return Standing.of(known, family=family, rule=rules.ladder)
