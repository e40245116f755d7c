"""Arms as a night reads them, for tests."""

from __future__ import annotations

import math
from dataclasses import replace

from bandit.core.gates import Performance
from bandit.core.ladder import Family, Standing
from bandit.core.limits import ArmPlace
from bandit.core.model import ArmMode, ArmRole, ArmStatus, PolicyName, Ppm, Verdict
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading

NEW, OTHER, OLD = (PolicyName(name) for name in ("new", "other", "old"))
UNKNOWN = Standing(
    trades=0,
    days=0,
    mean_up=0.0,
    mean_down=0.0,
    factor_up=0.0,
    worst_block=None,
    paper_up=None,
    fill_gap=Verdict.INCONCLUSIVE,
    family=Family(generation=1, size=1, promotions=0),
)
PROOF = math.log(1 / 0.025)
PROVEN = replace(UNKNOWN, mean_up=PROOF)
ELIGIBLE = replace(PROVEN, trades=500, days=30, factor_up=PROOF, worst_block=0.0)
WORSE = replace(UNKNOWN, mean_down=math.log(20) + 1e-9)


def factor(value: float) -> ProfitFactor:
    return ProfitFactor(gross_profit=value, gross_loss=1.0, n=150, n_losses=50)


def arm(
    policy: PolicyName, ppm: int, standing: Standing | None, *, pf: float = 2.0, trades: int = 500
) -> ArmReading:
    """A challenger whose conditions the ramp finds fulfilled; the champion has no standing."""
    role = ArmRole.CHAMPION if standing is None else ArmRole.CHALLENGER
    return ArmReading(
        place=ArmPlace(
            policy=policy,
            role=role,
            status=ArmStatus.ACTIVE,
            mode=ArmMode.LIVE,
            ppm=Ppm(ppm),
            trades=trades,
        ),
        pf_short=factor(pf),
        pf_long=factor(pf),
        dd_long_percent=1.0,
        pf_prod=factor(1.0),
        standing=standing,
    )


def performance(**changes: float | None) -> Performance:
    """What passes every gate of `standard`, but for changes."""
    good = Performance(
        trades=500,
        days=60,
        losses_realised=150,
        sharpe_daily=3.0,
        profit_factor=2.0,
        profit_factor_low=1.5,
        profit_factor_worst_block=1.6,
        win_rate=0.6,
        drawdown_max_percent=3.0,
        marked_drawdown_low_percent=4.0,
        marked_drawdown_high_percent=5.0,
        worst_excursion_percent=2.0,
        excursion_per_realised_loss=2.0,
        return_on_capital=0.4,
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def ready(
    policy: PolicyName, ppm: int, standing: Standing = ELIGIBLE, *, pf: float = 2.0
) -> ArmReading:
    """A challenger whom a night that promotes would make the champion."""
    return replace(arm(policy, ppm, standing, pf=pf), shown=performance())
