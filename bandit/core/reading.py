"""What a night reads of an arm before it decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from bandit.core.allocators.posterior import Moments
from bandit.core.claims import Claims
from bandit.core.errors import InvalidInput
from bandit.core.fill_gap import FillGap, FillGapRule, paper_agrees
from bandit.core.gates import Performance
from bandit.core.guard_rule import GuardRule
from bandit.core.ladder import LadderRule, Standing
from bandit.core.limits import ArmPlace
from bandit.core.merits import performance_from_json, performance_json
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    PolicyName,
    Ppm,
    Promoter,
    Rung,
    Verdict,
)
from bandit.core.performance import ClosedTrade, in_closing_order, nominal_drawdown
from bandit.core.profit_factor import ProfitFactor, profit_factor
from bandit.core.selection import SelectionRule
from bandit.core.sizing import SizingRule

_UNASKED = ProfitFactor(gross_profit=0.0, gross_loss=0.0, n=0, n_losses=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """An arm that the checklist throttled: since when, what it held, and how it does on paper.

    `paper` is the profit factor of its newest results on paper, as many as the long window has;
    None where there are fewer, and where none is of the day it was throttled or later.
    """

    since: datetime
    held: Ppm
    paper: ProfitFactor | None

    def to_json(self) -> dict[str, object]:
        """Return it as it is stored with a decision."""
        paper = None if self.paper is None else self.paper.to_json()
        return {"since": self.since.isoformat(), "held": self.held, "paper": paper}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Throttled:
        """Return what `to_json` gave."""
        paper = stored["paper"]
        return cls(
            since=datetime.fromisoformat(stored["since"]),
            held=Ppm(stored["held"]),
            paper=None if paper is None else ProfitFactor.from_json(paper),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmReading:
    """An arm's place and its numbers at nominal size.

    `pf_short` and `pf_long` are the profit factors of the last 30 and 150 trades, `dd_long_percent`
    the drawdown of the last 150; `pf_prod` is the champion's profit factor over this arm's own
    calendar window and instruments. `resumed` are the same first and third numbers over the trades
    since the arm was resumed: what it was stopped for must not stop it again. `standing` is what a
    challenger's evidence amounts to, `moments` what the strategy counts of its results, `throttled`
    what an arm's return depends on that the checklist throttled, `shown` what the gates hold
    against their limits of one that may become the champion, `claims` what became of the decisions
    that bots claimed; None where there are none, and of nights before releases that counted them.
    """

    place: ArmPlace
    pf_short: ProfitFactor
    pf_long: ProfitFactor
    dd_long_percent: float
    pf_prod: ProfitFactor
    resumed: tuple[ProfitFactor, float] | None = None
    standing: Standing | None = None
    moments: Moments | None = None
    throttled: Throttled | None = None
    shown: Performance | None = None
    claims: Claims | None = None

    @property
    def judged(self) -> tuple[ProfitFactor, float]:
        """Profit factor and drawdown that the checklist holds against its limits."""
        return self.resumed or (self.pf_short, self.dd_long_percent)

    def to_json(self) -> dict[str, object]:
        """Return the arm as a decision writes it down; the champion has no `pf_prod`."""
        place = self.place
        return {
            "policy": place.policy,
            "role": place.role.value,
            "status": place.status.value,
            "mode": place.mode.value,
            "ppm": place.ppm,
            "rung": place.rung.value,
            "trades": place.trades,
            "pf_30": self.pf_short.to_json(),
            "pf_150": self.pf_long.to_json(),
            "dd_150_percent": self.dd_long_percent,
            "resumed": None
            if self.resumed is None
            else {"pf_30": self.resumed[0].to_json(), "dd_150_percent": self.resumed[1]},
            "pf_prod": None if place.role is ArmRole.CHAMPION else self.pf_prod.to_json(),
            "standing": None if self.standing is None else self.standing.to_json(),
            "moments": None if self.moments is None else asdict(self.moments),
            "throttled": None if self.throttled is None else self.throttled.to_json(),
            **({} if self.shown is None else {"shown": performance_json(self.shown)}),
            "claims": None if self.claims is None else asdict(self.claims),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ArmReading:
        """Return what `to_json` gave.

        The champion is compared with nobody: its `pf_prod` comes back without trades. Raises
        `InvalidInput` for what another release wrote down and this one cannot read.
        """
        try:
            return cls._read(stored)
        except KeyError as missing:
            raise InvalidInput(
                field="reading", rule=f"must have {missing.args[0]}", found="nothing"
            ) from None
        except (TypeError, ValueError) as error:
            rule = "must be what this release writes down"
            raise InvalidInput(field="reading", rule=rule, found=error) from error

    @classmethod
    def _read(cls, stored: Mapping[str, Any]) -> ArmReading:
        resumed, prod, moments = (stored[name] for name in ("resumed", "pf_prod", "moments"))
        standing = stored["standing"]
        throttled, claims = stored["throttled"], stored.get("claims")
        shown = stored.get("shown")  # most nights measure it of nobody
        return cls(
            place=ArmPlace(
                policy=PolicyName(stored["policy"]),
                role=ArmRole(stored["role"]),
                status=ArmStatus(stored["status"]),
                mode=ArmMode(stored["mode"]),
                ppm=Ppm(stored["ppm"]),
                trades=stored["trades"],
                rung=Rung(stored["rung"]),
            ),
            pf_short=ProfitFactor.from_json(stored["pf_30"]),
            pf_long=ProfitFactor.from_json(stored["pf_150"]),
            dd_long_percent=float(stored["dd_150_percent"]),
            pf_prod=_UNASKED if prod is None else ProfitFactor.from_json(prod),
            resumed=None
            if resumed is None
            else (ProfitFactor.from_json(resumed["pf_30"]), float(resumed["dd_150_percent"])),
            standing=None if standing is None else Standing.from_json(standing),
            moments=None if moments is None else Moments.from_json(moments),
            throttled=None if throttled is None else Throttled.from_json(throttled),
            shown=None if shown is None else performance_from_json(shown),
            claims=None if claims is None else Claims(**claims),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RampRule:
    """The nightly rule of the source documents: what lets an arm grow or shrink.

    >>> RampRule().min_trades
    30
    """

    min_trades: int = 30
    drawdown_limit_percent: float = 3.0
    ceiling_ppm: int = 600_000
    step_down: float = 1.5

    def __post_init__(self) -> None:
        """Refuse a rule that grows or shrinks the wrong way."""
        if self.min_trades < 1:
            raise InvalidInput(field="min_trades", rule="must be >= 1", found=self.min_trades)
        if not 1 < self.step_down <= 10:
            rule = "must be above 1 and at most 10"
            raise InvalidInput(field="step_down", rule=rule, found=self.step_down)
        if not 0 < self.drawdown_limit_percent <= 100:
            found = self.drawdown_limit_percent
            rule = "must be above 0 and at most 100 percent"
            raise InvalidInput(field="drawdown_limit_percent", rule=rule, found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecklistRule:
    """Thresholds of the live-ops checklist (SPEC F2).

    An arm that it throttled comes back after `reentry_days` where results on paper do not say when.

    >>> ChecklistRule().pf_throttle
    1.6
    """

    window: int = 30
    pf_throttle: float = 1.6
    pf_band: tuple[float, float] = (2.1, 2.8)
    drawdown_halt_percent: float = 4.0
    drawdown_band_percent: tuple[float, float] = (0.0, 3.0)
    kl_refresh: float = 0.30
    kl_band: tuple[float, float] = (0.0, 0.25)
    long_window: int = 150
    reentry_days: int = 3

    def __post_init__(self) -> None:
        """Refuse windows and thresholds that can never be measured."""
        if not 1 <= self.window <= self.long_window <= 1000:
            rule = "must satisfy 1 <= window <= long_window <= 1000"
            raise InvalidInput(field="window", rule=rule, found=(self.window, self.long_window))
        if not 0 < self.drawdown_halt_percent <= 100:
            found = self.drawdown_halt_percent
            rule = "must be above 0 and at most 100 percent"
            raise InvalidInput(field="drawdown_halt_percent", rule=rule, found=found)
        if not 0 <= self.pf_throttle <= 100:
            rule = "must lie in 0..100"
            raise InvalidInput(field="pf_throttle", rule=rule, found=self.pf_throttle)
        if not 0 < self.kl_refresh <= 1000:
            rule = "must be above 0 and at most 1000 nats"
            raise InvalidInput(field="kl_refresh", rule=rule, found=self.kl_refresh)
        if not 1 <= self.reentry_days <= 3650:
            rule = "must lie in 1..3650"
            raise InvalidInput(field="reentry_days", rule=rule, found=self.reentry_days)

    @property
    def silenced(self) -> ChecklistRule:
        """The same rule, but for what it stops: nothing.

        >>> ChecklistRule().silenced.pf_throttle
        0.0
        """
        return replace(self, pf_throttle=0.0, drawdown_halt_percent=100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The profit factors of the newest 30 and 150 trades, and the drawdown of the 150."""

    pf_short: ProfitFactor
    pf_long: ProfitFactor
    dd_long_percent: float

    @classmethod
    def of(
        cls, newest: Sequence[ClosedTrade], *, rule: ChecklistRule, nominal_fraction: float
    ) -> Windows:
        """Read the windows of a rule; `newest` are trades in the order of their closing.

        >>> Windows.of([], rule=ChecklistRule(), nominal_fraction=0.1).dd_long_percent
        0.0
        """
        results = [trade.result for trade in in_closing_order(newest)][-rule.long_window :]
        return cls(
            pf_short=profit_factor(results[-rule.window :]),
            pf_long=profit_factor(results),
            dd_long_percent=nominal_drawdown(results, nominal_fraction),
        )

    @property
    def judged(self) -> tuple[ProfitFactor, float]:
        """What the checklist holds against its limits: the short profit factor and the drawdown."""
        return self.pf_short, self.dd_long_percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules an experiment was opened with; stored, so that every process reads the same.

    `allocator` are the settings of its strategy, by name; what is left out has its default.
    `weigh_paper` lets a strategy weigh arms by their results on paper, where these are believed.
    `promote` says who makes an eligible arm the champion. `guard` is the performance guard's,
    `selection` says which symbols may be entered. `sizing` are the limits of positions; None where
    there are none, as of releases before them.
    """

    ramp: RampRule = field(default_factory=RampRule)
    checklist: ChecklistRule = field(default_factory=ChecklistRule)
    ladder: LadderRule = field(default_factory=LadderRule)
    fill_gap: FillGapRule = field(default_factory=FillGapRule)
    allocator: Mapping[str, float] = field(default_factory=dict)
    weigh_paper: bool = True
    promote: Promoter = Promoter.PERSON
    guard: GuardRule = field(default_factory=GuardRule)
    selection: SelectionRule = field(default_factory=SelectionRule)
    sizing: SizingRule | None = None

    def weighs_paper(self, gap: FillGap, *, on_paper: int, live: int) -> bool:
        """Say whether an arm is weighed by its trades on paper: where they agree and are more.

        >>> Rules().weighs_paper(FillGap(), on_paper=200, live=20)  # nothing says that they agree
        False
        """
        if not self.weigh_paper or on_paper <= live:
            return False
        return paper_agrees(gap, self.fill_gap).verdict is Verdict.PASS

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Rules:
        """Return the rules whose fields were stored; those that came later have their defaults.

        >>> Rules.from_json(asdict(Rules())) == Rules()
        True
        """
        checklist = dict(stored["checklist"])
        for band in checklist.keys() & {"pf_band", "drawdown_band_percent", "kl_band"}:
            checklist[band] = tuple(checklist[band])
        return cls(
            ramp=RampRule(**stored["ramp"]),
            checklist=ChecklistRule(**checklist),
            ladder=LadderRule(**stored.get("ladder", {})),
            fill_gap=FillGapRule(**stored.get("fill_gap", {})),
            allocator=stored.get("allocator", {}),
            weigh_paper=stored.get("weigh_paper", True),
            promote=Promoter(stored.get("promote", Promoter.PERSON)),
            guard=GuardRule.from_json(stored.get("guard", {})),
            selection=SelectionRule.from_json(stored.get("selection", {})),
            sizing=SizingRule.from_json(stored.get("sizing")),
        )
