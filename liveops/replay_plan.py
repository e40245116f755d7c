"""What a replay is: which bars, under which rules, and into which experiment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from bandit.core.account import LossLimits
from bandit.core.limits import Limits
from bandit.core.model import PolicySha, Profile
from bandit.core.reading import Rules
from bandit.core.selection import SelectionRule
from learners.market.candles import Candles
from learners.market.paper_market import PERPETUAL_TAKER, Costs
from liveops.replay_arms import LearnedArm

ACTOR = "replay"
CAPITAL = Decimal(10_000)
COMPLETE = "replay_complete"
PREFIX = "paper-"
"""Of the names of the experiments that hold replays."""

OPEN_MAX = 20
"""How many positions the demo holds at once: outcomes arrive late, and 27 were open without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is replayed: which bars, under which seed and rules, into which experiment.

    `learned` are challengers beside the rules of `replay_arms`.
    """

    candles: Candles
    bars: range
    seed: int
    experiment: str
    profile: Profile
    limits: Limits
    loss_limits: LossLimits
    rules: Rules
    # So small that its account stays within the documents' loss limits on the shipped candles.
    equity_fraction: float = 0.04
    costs: Costs = PERPETUAL_TAKER
    learned: tuple[LearnedArm, ...] = ()


def demo_rules(rules: Rules) -> Rules:
    """Return the rules of a paper market: the configured ones, less strict where it earns less.

    The documents expect profit factors of 2.1 to 2.8 and throttle under 1.6. Hourly rules after
    costs live near 1, so that limit would stop every arm of the demo in its first weeks. They win
    four trades in ten: guards that pause under three of ten would refuse half of all opportunities.
    Up to 27 positions were open at once on the shipped candles: two places would be no market. It
    has one instrument, which no selection may leave out.
    """
    checklist = replace(rules.checklist, pf_throttle=0.4, pf_band=(0.8, 1.6))
    sizing = None if rules.sizing is None else replace(rules.sizing, max_open_positions=OPEN_MAX)
    guard = replace(rules.guard, win_rate_paused=0.1, win_rate_reduced=0.2, recovery_win_rate=0.3)
    return replace(
        rules, checklist=checklist, guard=guard, sizing=sizing, selection=SelectionRule()
    )


def experiment_name(
    candles: Candles,
    bars: range,
    *,
    seed: int,
    profile: Profile,
    learned: Sequence[PolicySha] = (),
) -> str:
    """Return the experiment that holds exactly this replay, so that two never mix.

    >>> from learners.market.candles import shipped_candles
    >>> name = experiment_name(shipped_candles(), range(10), seed=7, profile=Profile.GUARDED)
    >>> name, name.startswith(PREFIX)
    ('paper-btcusd-016a0400', True)
    """
    what = f"{candles.digest}|{bars.start}|{bars.stop}|{seed}|{profile}"
    for sha in learned:
        what += f"|{sha}"
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    instrument = "".join(c for c in candles.instrument.lower() if c.isalnum())[:20]
    return f"{PREFIX}{instrument}-{digest}"
