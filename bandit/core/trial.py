"""An experiment made up from start to end: hypothetical arms, and the nights of production.

Units are routed, results scored and nights decided by the functions that the service calls. Every
opportunity of a day is a trade; outcomes are told in one batch before the night, `delay_days` after
their day. So a trial can be told to the service too, and must end the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from bandit.core import checklist, night
from bandit.core.cohorts import Cohort
from bandit.core.evidence import Tally, Terms, paired_scores, rewards, routed_scores, terms_of
from bandit.core.ladder import families
from bandit.core.lifecycle import after
from bandit.core.limits import ArmPlace, opening, with_part
from bandit.core.model import (
    Allocation,
    ArmMode,
    ArmRole,
    ArmStatus,
    PolicyName,
    Ppm,
    Profile,
    Rung,
)
from bandit.core.reading import ArmReading
from bandit.core.reentry import Return
from bandit.core.routing import partition, repartition, router
from bandit.core.trial_arm import TrialArm
from bandit.core.trial_plan import (
    CHAMPION,
    EXPERIMENT,
    INSTRUMENT,
    OPENED,
    SCALE,
    Fate,
    Integers,
    TrialPlan,
    decided_at,
    night_of,
    told_at,
    unit_of,
)

Floats = NDArray[np.float64]


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
            policy: TrialArm(plan, ArmRole.CHAMPION if policy == CHAMPION else ArmRole.CHALLENGER)
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
            if self.plan.on_paper:
                self.arms[policy].add_paper(day, self.fate.results[i, day].tolist(), live=len(mine))
        terms = self.terms_of_day[day]
        if terms is not None:
            self._score(day, results, terms)
            if self.plan.on_paper:
                self._pair(day, terms)

    def _score(self, day: int, results: Integers, terms: Terms) -> None:
        chosen, policies = self.chosen[day], self.plan.policies
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
                self.arms[policy].routed.add(Cohort(day=date, tally=tally))

    def _pair(self, day: int, terms: Terms) -> None:
        results = self.fate.results[:, day] / SCALE / terms.unit_of(INSTRUMENT)
        champion = rewards(results[-1], terms)
        elsewhere = self.chosen[day] != len(results) - 1
        for i, policy in enumerate(self.plan.challengers):
            scores = paired_scores(rewards(results[i], terms), champion)
            tally = Tally.of(scores, chosen=elsewhere)
            self.arms[policy].paired.add(Cohort(day=decided_at(day, 0).date(), tally=tally))

    def night(self, day: int) -> None:
        """Decide the next day's allocation."""
        plan, now = self.plan, night_of(day)
        decided = night.decide(
            self._guarded(day),
            rules=plan.rules,
            limits=plan.limits,
            profile=plan.profile,
            strategy=plan.strategy,
            seed=night.seed_of(plan.strategy, self.fate.salt, now.date()),
            now=now,
        )
        for found in decided.back:
            self._bring_back(found, now=now)
        self.terms = terms_of({INSTRUMENT: self.arms[CHAMPION].earned}) or self.terms
        if plan.profile is not Profile.OBSERVE:
            self._hold(decided.proposal.ppm)
            for policy, rung in decided.rungs.items():
                self.arms[policy].rung = rung
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

    def _guarded(self, day: int) -> list[ArmReading]:
        """Read every arm, and stop what the checklist flags: as soon as outcomes are told."""
        plan, now = self.plan, night_of(day)
        readings = [self._reading(policy, now=now) for policy in plan.policies]
        if plan.profile is Profile.OBSERVE:
            return readings
        for reading, row in checklist.actions(readings, plan.rules.checklist):
            self._stop(reading.place, row, day)
        return [
            replace(
                reading,
                place=self._place(reading.place.policy),
                throttled=self.arms[reading.place.policy].throttled(),
            )
            for reading in readings
        ]

    def _stop(self, place: ArmPlace, row: checklist.ArmRow, day: int) -> None:
        arm = self.arms[place.policy]
        arm.status = after(row.action, status=place.status, role=place.role)
        arm.held = place.ppm
        arm.throttled_at = told_at(day) if arm.status is ArmStatus.THROTTLED else None
        self._hold(with_part(self._places(), place.policy, 0))

    def _bring_back(self, found: Return, *, now: datetime) -> None:
        arm = self.arms[found.policy]
        arm.status, arm.throttled_at, arm.resumed_at = ArmStatus.ACTIVE, None, now
        self._hold(with_part(self._places(), found.policy, found.part))

    def _places(self) -> list[ArmPlace]:
        return [self._place(policy) for policy in self.plan.policies]

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
        arm = self.arms[policy]
        windows = arm.windows()
        standing = None
        if arm.role is ArmRole.CHALLENGER:
            standing = arm.standing(self.family[policy], now=now)
        since = arm.newest[0].closed_at if arm.newest else None
        return ArmReading(
            resumed=arm.resumed(),
            place=self._place(policy),
            pf_short=windows.pf_short,
            pf_long=windows.pf_long,
            dd_long_percent=windows.dd_long_percent,
            pf_prod=self.arms[CHAMPION].factor_since(since),
            standing=standing,
            moments=arm.moments(self.arms[CHAMPION].earned, now=now),
        )
