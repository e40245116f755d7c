"""The rules that move traffic and stop arms; every key here is in force."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo, field_validator

from bandit.core.model import Promoter
from config.section import Count, Number, Section, setting

_FLAGGED_ABOVE: Final = {
    "drawdown_band_percent": "drawdown_halt_percent",
    "kl_band": "kl_refresh",
    "gpu_band": "gpu_restart",
}


def _rising_band(band: tuple[float, float]) -> tuple[float, float]:
    if band[0] > band[1]:
        raise ValueError("must give the lower end first")
    return band


Band = Annotated[tuple[Number, Number], AfterValidator(_rising_band)]


class Ramp(Section):
    """The nightly rule that moves traffic."""

    min_trades: Count = setting(
        30, meaning="An arm with fewer trades is left alone.", unit="trades", ge=1
    )
    step_up: Number = setting(
        1.5,
        meaning="Largest growth of an arm's part in one night; from nothing it may go to `start`.",
        unit="factor",
        ge=1,
        le=10,
    )
    step_down: Number = setting(
        1.5, meaning="A part is divided by this when it steps down.", unit="factor", ge=1, le=10
    )
    drawdown_limit_percent: Number = setting(
        3.0, meaning="An arm with a deeper `dd_150` does not step up.", unit="percent", gt=0, le=100
    )


class Limits(Section):
    """Parts of the order flow that hold after every change.

    Challengers together get what the champion's floor leaves.
    """

    rising = (
        ("champion_floor_proven", "champion_floor"),
        ("arm_minimum", "start", "unproven_cap"),
    )

    champion_floor: Number = setting(
        0.40,
        meaning="The champion's part never falls under this.",
        unit="fraction of traffic",
        ge=0,
        lt=1,
    )
    champion_floor_proven: Number = setting(
        0.10,
        meaning="Its floor once a challenger has `proven_trades`.",
        unit="fraction of traffic",
        ge=0,
        lt=1,
    )
    proven_trades: Count = setting(
        500, meaning="Trades that lower the champion's floor.", unit="trades", ge=1
    )
    unproven_cap: Number = setting(
        0.25,
        meaning="Most for a challenger not yet proven better (profile guarded).",
        unit="fraction of traffic",
        gt=0,
        le=1,
    )
    arm_minimum: Number = setting(
        0.02,
        meaning="Least for a live challenger neither throttled nor halted.",
        unit="fraction of traffic",
        ge=0,
        le=1,
    )
    start: Number = setting(
        0.10, meaning="What a new challenger starts with.", unit="fraction of traffic", gt=0, le=1
    )


class Allocator(Section):
    """Settings of the strategies beside the ramp, each in force under the one it belongs to."""

    half_life_days: Number = setting(
        140.0,
        meaning="discounted_thompson: a result counts half after this time.",
        unit="days",
        ge=1,
        le=3650,
    )
    window_days: Number = setting(
        90.0,
        meaning="sliding_window_thompson: older results do not count.",
        unit="days",
        ge=1,
        le=3650,
    )
    width: Number = setting(
        0.7,
        meaning="ucb: how much not knowing an arm speaks for it.",
        unit="ratio",
        ge=0.01,
        le=10,
    )
    epsilon: Number = setting(
        0.1,
        meaning="epsilon_greedy: shared alike whatever was earned.",
        unit="fraction of traffic",
        ge=0,
        le=1,
    )
    challenger_share: Number = setting(
        0.1,
        meaning="fixed: what every challenger gets, an equal share at most.",
        unit="fraction of traffic",
        ge=0.001,
        le=0.5,
    )


class Evidence(Section):
    """What the ladder asks for before an arm may rise past `limits.unproven_cap`."""

    alpha: Number = setting(
        0.05,
        meaning="Share of promotions that may be false, over the life of an experiment.",
        unit="probability",
        gt=0,
        le=0.2,
    )
    attribution_hours: Count = setting(
        72,
        meaning="Decisions count as evidence once their day is this long ago.",
        unit="hours",
        ge=0,
        le=2160,
    )
    trades: Count = setting(
        500, meaning="Trades of its own that an eligible arm has.", unit="trades", ge=1
    )
    days: Count = setting(30, meaning="Days on which it decided.", unit="days", ge=1, le=3650)
    blocks: Count = setting(
        6,
        meaning="Parts of its decisions, in order, in each of which it must be ahead.",
        unit="count",
        ge=1,
        le=100,
    )
    decay_days: Count = setting(
        1000,
        meaning="An arm that goes on as it did is said to decay once in this time at most.",
        unit="days",
        ge=10,
        le=100_000,
    )
    unreported_max: Number = setting(
        0.05,
        meaning="Share of claimed decisions that may end without an outcome, or opened too late.",
        unit="fraction of claims",
        gt=0,
        le=0.5,
    )
    flattery_max: Number = setting(
        0.0002,
        meaning="Results on paper count while they are better than live by less than this.",
        unit="fraction of notional",
        ge=0,
        le=0.01,
    )
    fill_gap_trades: Count = setting(
        50,
        meaning="Trades with both results before paper is believed.",
        unit="trades",
        ge=2,
        le=10**6,
    )
    fill_gap_alpha: Number = setting(
        0.05,
        meaning="How often the interval of the fill gap may miss it.",
        unit="probability",
        gt=0,
        le=0.2,
    )
    weigh_paper: bool = setting(
        True,
        meaning="Strategies weigh an arm by its results on paper where these agree and are more.",
        unit="true or false",
    )
    promote: Promoter = setting(
        Promoter.PERSON,
        meaning="Who makes an eligible arm the champion: a person alone, or a guarded night too.",
        unit="name",
    )


class Checklist(Section):
    """Expected bands of the live-ops checklist, and where it acts."""

    rising = (("pf_window", "long_window"),)

    pf_window: Count = setting(
        30, meaning="Window of the checklist's profit factor.", unit="trades", ge=1
    )
    pf_throttle: Number = setting(
        1.6, meaning="A lower profit factor throttles the arm to 0.", unit="ratio", ge=0
    )
    pf_band: Band = setting(
        (2.1, 2.8),
        meaning="Expected profit factor, lowest and highest; not under `pf_throttle`.",
        unit="ratio",
    )
    drawdown_halt_percent: Number = setting(
        4.0, meaning="A deeper drawdown halts the arm.", unit="percent", gt=0, le=100
    )
    drawdown_band_percent: Band = setting(
        (0.0, 3.0),
        meaning="Expected drawdown, lowest and highest; not above `drawdown_halt_percent`.",
        unit="percent",
    )
    kl_refresh: Number = setting(
        0.30,
        meaning="An encoder that diverges further is refreshed; chance taken off (docs/drift.md).",
        unit="nats",
        gt=0,
        le=1000,
    )
    kl_band: Band = setting(
        (0.0, 0.25),
        meaning="Expected divergence, lowest and highest; not above `kl_refresh`.",
        unit="nats",
    )
    gpu_restart: Number = setting(
        60.0,
        meaning="A learner whose GPU is busier while it makes no progress is begun again.",
        unit="percent",
        gt=0,
        le=100,
    )
    gpu_band: Band = setting(
        (2.0, 10.0),
        meaning="How busy a GPU is expected to be, lowest and highest; not above `gpu_restart`.",
        unit="percent",
    )
    reentry_days: Count = setting(
        3,
        meaning="Without results on paper, a throttled arm that evidence speaks for waits as long.",
        unit="days",
        ge=1,
        le=3650,
    )
    long_window: Count = setting(
        150, meaning="Window of `pf_150` and `dd_150`.", unit="trades", ge=1
    )

    @field_validator("pf_band")
    @classmethod
    def _healthy_is_not_throttled(
        cls, band: tuple[float, float], info: ValidationInfo
    ) -> tuple[float, float]:
        throttle = info.data.get("pf_throttle")
        if throttle is not None and band[0] < throttle:
            raise ValueError(f"must not start under pf_throttle = {throttle:g}")
        return band

    @field_validator("drawdown_band_percent", "kl_band", "gpu_band")
    @classmethod
    def _expected_is_not_flagged(
        cls, band: tuple[float, float], info: ValidationInfo
    ) -> tuple[float, float]:
        name = _FLAGGED_ABOVE[info.field_name or ""]
        limit = info.data.get(name)
        if limit is not None and band[1] > limit:
            raise ValueError(f"must not end above {name} = {limit:g}")
        return band
