"""The evidence ladder: how far an arm may rise, given what is known of it (SPEC E3, E9).

*unproven*: nothing says that it is better; *proven*: an anytime-valid test does; *eligible*: also
on the profit factor, for long enough, and throughout. Every condition is a named reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from bandit.core.cohorts import Cohort, CohortSums, worst_mean_score
from bandit.core.detectors import decay
from bandit.core.errors import InvalidInput
from bandit.core.evidence import Tally, total
from bandit.core.model import PolicyName, Rung, Verdict
from bandit.core.verdicts import Reason, at_least, at_most

DECAY: Final = "decay"
CHAMPION_DECAY: Final = "decay of the champion"


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderRule:
    """What each rung takes.

    `alpha` is the share of promotions that may be false, over the life of an experiment.
    Decisions count once `attribution_hours` have passed since their day: winners close early,
    losers late. A challenger is eligible with `trades` of its own, on `days` of decisions, and
    better in each of `blocks` parts of them: an edge of one season is not one. An arm that goes on
    as it did is said to decay once in `decay_days` days of decisions at most. Of the decisions that
    a bot claims, a share of `unreported_max` may come to nothing.

    >>> LadderRule().alpha
    0.05
    """

    alpha: float = 0.05
    attribution_hours: int = 72
    trades: int = 500
    days: int = 30
    blocks: int = 6
    decay_days: int = 1000
    unreported_max: float = 0.05

    def __post_init__(self) -> None:
        """Refuse rules that nobody or everybody satisfies."""
        if not 0.0 < self.alpha <= 0.2:
            raise InvalidInput(
                field="alpha", rule="must be above 0 and at most 0.2", found=self.alpha
            )
        if not 0.0 < self.unreported_max <= 0.5:
            rule, found = "must be above 0 and at most 0.5", self.unreported_max
            raise InvalidInput(field="unreported_max", rule=rule, found=found)
        for name, low, high in (
            ("attribution_hours", 0, 24 * 90),
            ("trades", 1, 10**6),
            ("days", 1, 3650),
            ("blocks", 1, 100),
            ("decay_days", 10, 10**5),
        ):
            if not low <= getattr(self, name) <= high:
                rule = f"must lie in {low}..{high}"
                raise InvalidInput(field=name, rule=rule, found=getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The arms that joined an experiment on one day: what one round of training brought.

    `generation` counts such days from 1, `size` its arms, `promotions` those made before it.

    >>> Family(generation=1, size=4, promotions=0).level(LadderRule())
    0.025
    >>> Family(generation=3, size=4, promotions=1).level(LadderRule()) * 60
    0.5
    """

    generation: int
    size: int
    promotions: int

    def level(self, rule: LadderRule) -> float:
        """Return the share of `alpha` that this family may spend: alpha (R + 1) / (g (g + 1)).

        The shares of all generations sum to one, and every promotion earns another one, which
        bounds the expected share of false promotions at `alpha` for ever, whatever depends on
        what: e-LOND, Xu and Ramdas 2024 (arXiv 2311.06412).
        """
        g = self.generation
        return min(rule.alpha * (self.promotions + 1) / (g * (g + 1)), rule.alpha)


def families(
    joined: Mapping[PolicyName, datetime], promoted: Sequence[datetime]
) -> dict[PolicyName, Family]:
    """Return each arm's family, from when every arm of the experiment's life joined it.

    `promoted` are the times of its promotions. Times must be in UTC.
    """
    days = {policy: at.date() for policy, at in joined.items()}
    order = sorted(set(days.values()))
    sizes = {day: sum(other == day for other in days.values()) for day in order}
    return {
        policy: Family(
            generation=order.index(day) + 1,
            size=sizes[day],
            promotions=sum(at.date() < day for at in promoted),
        )
        for policy, day in days.items()
    }


def matured(cohorts: Sequence[Cohort], *, now: datetime, rule: LadderRule) -> list[Cohort]:
    """Return the cohorts, in order of their days, whose attribution window has closed."""
    ready = newest_matured(now=now, rule=rule)
    return sorted((c for c in cohorts if c.day <= ready), key=lambda cohort: cohort.day)


def newest_matured(*, now: datetime, rule: LadderRule) -> date:
    """Return the newest UTC day whose decisions count by now.

    >>> newest_matured(now=datetime.fromisoformat("2026-03-09T02:00:00Z"), rule=LadderRule())
    datetime.date(2026, 3, 5)
    """
    return (now - timedelta(days=1, hours=rule.attribution_hours)).date()


def matured_before(*, now: datetime, rule: LadderRule) -> datetime:
    """Return before which moment decisions have had the time to be reported by now.

    >>> now = datetime.fromisoformat("2026-03-09T02:00:00Z")
    >>> matured_before(now=now, rule=LadderRule()).isoformat()
    '2026-03-06T00:00:00+00:00'
    """
    newest = newest_matured(now=now, rule=rule)
    return datetime.combine(newest + timedelta(days=1), time(), tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEvidence:
    """What is known of a challenger beside its champion when its rung is asked for.

    `routed` are its matured cohorts, `paired` those of paired results, None where nobody tells any,
    and `fill_gap` whether these agree with the arm's own live results. A `is_hold_out` was the
    champion before.
    """

    trades: int
    routed: Sequence[Cohort]
    paired: Sequence[Cohort] | None
    fill_gap: Verdict
    is_hold_out: bool = False

    @property
    def sums(self) -> EvidenceSums:
        """The same without its days."""
        paired = self.paired
        return EvidenceSums(
            trades=self.trades,
            routed=CohortSums.of(self.routed),
            paired=None if paired is None else total(cohort.tally for cohort in paired),
            fill_gap=self.fill_gap,
            is_hold_out=self.is_hold_out,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSums:
    """What is known of a challenger, as `ArmEvidence`, with its cohorts added up."""

    trades: int
    routed: CohortSums
    paired: Tally | None
    fill_gap: Verdict
    is_hold_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All that a challenger's rung follows from, in numbers that are stored with the night.

    `mean_up`, `mean_down` and `factor_up` are the log e-values of its routed decisions, on the mean
    and on the profit factor; `paper_up` that of paired results, where there are any; `days` those
    on which it decided, `worst_block` the mean score of the worst part of them. `decay` is the
    level at which the arm is said to earn less beside the champion than it did, and
    `champion_decay`, of a hold-out, that at which the champion is; None of nights before releases
    that asked.
    """

    trades: int
    days: int
    mean_up: float
    mean_down: float
    factor_up: float
    worst_block: float | None
    paper_up: float | None
    fill_gap: Verdict
    family: Family
    decay: float | None = None
    champion_decay: float | None = None

    @classmethod
    def of(cls, known: EvidenceSums, *, family: Family, rule: LadderRule) -> Standing:
        """Reduce what is known of an arm to what its rung follows from."""
        up, down = known.routed.bets_by_day
        strength = known.routed.total.strength
        return cls(
            trades=known.trades,
            days=known.routed.days,
            mean_up=strength.mean_up,
            mean_down=strength.mean_down,
            factor_up=strength.factor_up,
            worst_block=worst_mean_score(known.routed, rule.blocks),
            paper_up=None if known.paired is None else known.paired.strength.mean_up,
            fill_gap=known.fill_gap,
            family=family,
            decay=decay(down),
            champion_decay=decay(up) if known.is_hold_out else None,
        )

    def to_json(self) -> dict[str, object]:
        """Return the numbers as they are stored with a decision."""
        return asdict(self) | {"fill_gap": self.fill_gap.value}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Standing:
        """Return what `to_json` gave.

        >>> first = Family(generation=1, size=1, promotions=0)
        >>> gap = Verdict.INCONCLUSIVE
        >>> known = EvidenceSums(trades=0, routed=CohortSums(), paired=None, fill_gap=gap)
        >>> standing = Standing.of(known, family=first, rule=LadderRule())
        >>> Standing.from_json(standing.to_json()) == standing
        True
        """
        family, gap = Family(**stored["family"]), Verdict(stored["fill_gap"])
        return cls(**{**stored, "family": family, "fill_gap": gap})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What evidence has to reach, as log e-values.

    `mean` for an arm to be proven, routed or on paper; `factor` on the profit factor, to be
    eligible; `harm` to be shown to earn less than its champion.
    """

    mean: float
    factor: float
    harm: float

    @classmethod
    def of(cls, standing: Standing, *, rule: LadderRule) -> Bar:
        """Return the bar of an arm; two ways to be proven share the level of its family."""
        family = standing.family
        level = family.level(rule) / (1 if standing.paper_up is None else 2)
        return cls(
            mean=math.log(family.size / level),
            factor=-math.log(level),
            harm=-math.log(rule.alpha),
        )


def harm(standing: Standing, *, rule: LadderRule) -> Reason:
    """Say whether an arm has been shown to earn less than its champion: FAIL when it has."""
    limit = Bar.of(standing, rule=rule).harm
    return at_most("evidence against", standing.mean_down, limit, note="log e-value")


def decays(standing: Standing, *, rule: LadderRule) -> tuple[Reason, ...]:
    """Say whether an arm earns less beside its champion than it did, and a champion beside it.

    FAIL where it does. The champion is asked about beside an earlier one alone: any other arm
    that earns more than the champion has been proven to.

    >>> gap, first = Verdict.INCONCLUSIVE, Family(generation=1, size=1, promotions=0)
    >>> known = ArmEvidence(trades=0, routed=[], paired=None, fill_gap=gap, is_hold_out=True)
    >>> standing = Standing.of(known.sums, family=first, rule=LadderRule())
    >>> [reason.check for reason in decays(standing, rule=LadderRule())]
    ['decay', 'decay of the champion']
    """
    asked = ((DECAY, standing.decay), (CHAMPION_DECAY, standing.champion_decay))
    return tuple(
        at_most(check, level, rule.decay_days, note="days")
        for check, level in asked
        if level is not None
    )


def climb(standing: Standing, *, rule: LadderRule) -> tuple[Rung, tuple[Reason, ...]]:
    """Return the arm's rung with the reasons for and against the next ones.

    Results on paper may prove an arm, which lets it have more traffic; only decisions that were
    routed by chance make it eligible.
    """
    bar = Bar.of(standing, rule=rule)
    routed = at_least("evidence of the mean", standing.mean_up, bar.mean, note="log e-value")
    reasons = [routed]
    on_paper = Verdict.FAIL
    if standing.paper_up is not None:
        paper = at_least("evidence on paper", standing.paper_up, bar.mean, note="log e-value")
        gap = Reason(
            check="paper agrees with live", value=None, limit=None, verdict=standing.fill_gap
        )
        reasons += [paper, gap]
        if Verdict.PASS is paper.verdict is gap.verdict:
            on_paper = Verdict.PASS
    lasting = _lasting(standing, bar=bar, rule=rule)
    reasons += lasting
    if routed.verdict is Verdict.PASS and all(r.verdict is Verdict.PASS for r in lasting):
        return Rung.ELIGIBLE, tuple(reasons)
    proven = Verdict.PASS in (routed.verdict, on_paper)
    return (Rung.PROVEN if proven else Rung.UNPROVEN), tuple(reasons)


def _lasting(standing: Standing, *, bar: Bar, rule: LadderRule) -> tuple[Reason, ...]:
    factor = standing.factor_up
    return (
        at_least("evidence of the profit factor", factor, bar.factor, note="log e-value"),
        at_least("trades to be eligible", standing.trades, rule.trades),
        at_least("days with decisions", standing.days, rule.days),
        at_least(f"worst of {rule.blocks} blocks", standing.worst_block, 0.0, note="mean score"),
    )
