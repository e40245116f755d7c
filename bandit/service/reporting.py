"""What an operator reads: arms, numbers, checklist and the nights' decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from bandit.core import checklist
from bandit.core.allocators.posterior import Moments
from bandit.core.claims import Claims, Draws, drawn_as_allocated, unreported
from bandit.core.daily import Contribution, DailyNumbers, contribution, daily_numbers
from bandit.core.ladder import Standing
from bandit.core.limit_check import LimitCheck, limit_checks
from bandit.core.model import WHOLE_PPM, Allocation, ArmRole
from bandit.core.night import reasons_of
from bandit.core.performance import window_numbers
from bandit.core.profit_factor import profit_factor_interval
from bandit.core.reading import ArmReading
from bandit.core.upkeep import EncoderCheck, encoder_row
from bandit.core.verdicts import Reason
from bandit.service import accounts, exploring, live_gaps, pairing, performance_guarding
from bandit.service.accounts import AccountReport
from bandit.service.arm_report import DAILY_WINDOW, ArmReport
from bandit.service.exploring import BudgetReport
from bandit.service.live_gaps import BesideBacktest
from bandit.service.performance_guarding import GuardReport
from bandit.service.scaling import read_arms
from bandit.storage import decisions, drift, experiments, outcomes, statistics
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import snapshot
from bandit.storage.experiments import ArmRecord, ExperimentRecord
from bandit.storage.statistics import ArmStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentReport:
    """An experiment at one moment, read in one snapshot.

    `exploration` is None where there is no budget and never was one, `newest_of_champion` are the
    returns of the champion's newest trades, `succession` made its champion one; None where it
    opened with it. `draws` is what the newest night found of how units fell to arms; `guards` are
    the performance guards of its account and its own.
    """

    record: ExperimentRecord
    succession: DecisionRecord | None
    account: AccountReport
    version: int
    exploration: BudgetReport | None
    arms: tuple[ArmReport, ...]
    newest_of_champion: tuple[float, ...]
    draws: Reason | None
    guards: tuple[GuardReport, ...]
    newest_decisions: tuple[DecisionRecord, ...]

    @property
    def limit_checks(self) -> tuple[LimitCheck, ...]:
        """Whether the drawdown limits tell healthy arms from sick ones; takes a while."""
        return limit_checks(
            self.newest_of_champion,
            rules=self.record.rules,
            strategy=self.record.experiment.strategy,
            nominal_fraction=self.record.experiment.equity_fraction,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as `GET /v1/experiments/{e}/report` answers it."""
        experiment = self.record.experiment
        return {
            "experiment": experiment.name,
            "champion": experiment.champion,
            "succession": None if self.succession is None else _succession_json(self.succession),
            "capital": f"{experiment.capital:f}",
            "currency": experiment.currency,
            "account": experiment.account_name,
            "killed": self.record.is_killed,
            "dd_total": self.account.equity.drawdown_percent,
            "equity_fraction": experiment.equity_fraction,
            "profile": experiment.profile.value,
            "strategy": experiment.strategy.value,
            "allocation_version": self.version,
            "epoch": self.record.epoch,
            "exploration": None if self.exploration is None else self.exploration.to_json(),
            "drawdown_limits": {found.setting: found.to_json() for found in self.limit_checks},
            "draws": None if self.draws is None else self.draws.to_json(),
            "guards": [guard.to_json() for guard in self.guards],
            "arms": [arm.to_json() for arm in self.arms],
            "decisions": [decision_json(decision) for decision in self.newest_decisions],
        }


def report(engine: Engine, name: str, *, newest_decisions: int = 10) -> ExperimentReport:
    """Read everything an operator looks at, in time that does not grow with the history."""
    with snapshot(engine) as connection:
        return read(connection, experiments.load(connection, name), decisions_max=newest_decisions)


def read(
    connection: Connection, record: ExperimentRecord, *, decisions_max: int
) -> ExperimentReport:
    """Report on an experiment as a snapshot has it, with its newest decisions."""
    readings = {r.place.policy: r for r in read_arms(connection, record, record.kept_arms)}
    kept = [arm for arm in record.arms if arm.place.policy in readings]
    ids = [arm.id for arm in kept]
    encoders = drift.newest_of_encoders(connection, [arm.policy_sha for arm in kept])
    held, beside = statistics.of_arms(connection, ids), live_gaps.read(connection, ids)
    total = statistics.profit_of_all_by_day(connection, record.id, days=DAILY_WINDOW)
    earned_before = statistics.pnl_of_all(connection, record.id) - sum(total.values())
    everyone = _Everyone(total, record.experiment.capital + earned_before)
    night = _newest_night(connection, record)
    arms = [
        _arm_report(
            connection,
            arm,
            held[arm.id],
            _with_night(readings[arm.place.policy], night.read.get(arm.place.policy, {})),
            record,
            everyone,
            night=night.day,
            beside=beside.get(arm.id),
            encoder=encoders.get(arm.policy_sha),
        )
        for arm in kept
    ]
    (account,) = accounts.read(connection, [record.experiment.account_name], day=None)
    name, budget = record.experiment.name, exploring.read(connection, record)
    champion = record.arm_of(record.experiment.champion)
    newest = outcomes.newest_trades(connection, champion.id, record.rules.checklist.long_window)
    return ExperimentReport(
        record=record,
        succession=decisions.newest_succession(connection, name),
        account=account,
        version=decisions.newest_version(connection, record.id),
        exploration=budget if budget.budget is not None or budget.by_arm else None,
        arms=tuple(arms),
        newest_of_champion=tuple(trade.result for trade in newest),
        draws=None if night.draws is None else drawn_as_allocated(night.draws),
        guards=tuple(performance_guarding.of_experiment(connection, record.id)),
        newest_decisions=tuple(decisions.of_experiment(connection, name, newest=decisions_max)),
    )


class _Everyone(NamedTuple):
    """The net money of all arms by day, and what they had before the first of these."""

    profit_by_day: Mapping[date, Decimal]
    capital: Decimal

    def contribution_of(self, profit: Mapping[date, Decimal]) -> Contribution:
        mine = {day: money for day, money in profit.items() if day in self.profit_by_day}
        return contribution(mine, self.profit_by_day, capital=self.capital)


class _Night(NamedTuple):
    """The newest night, what it wrote down of each arm that it read, and of how units fell."""

    day: date | None = None
    read: Mapping[str, Mapping[str, Any]] = {}
    draws: Draws | None = None


def _newest_night(connection: Connection, record: ExperimentRecord) -> _Night:
    night = decisions.newest_night(connection, record.experiment.name, record.id)
    if night is None:
        return _Night()
    # A night that a person wrote by hand has read nothing.
    draws = night.inputs.get("draws")
    return _Night(
        day=night.trading_day,
        read={row["policy"]: row for row in night.inputs.get("readings", ())},
        draws=None if draws is None else Draws(**draws),
    )


def _with_night(reading: ArmReading, seen: Mapping[str, Any]) -> ArmReading:
    """Add what the newest night found: of a challenger that is one still, where it stands."""
    standing, moments, claims = (seen.get(name) for name in ("standing", "moments", "claims"))
    if reading.place.role is ArmRole.CHAMPION:
        standing = None
    return replace(
        reading,
        standing=None if standing is None else Standing.from_json(standing),
        moments=None if moments is None else Moments.from_json(moments),
        claims=None if claims is None else Claims(**claims),
    )


def _arm_report(
    connection: Connection,
    arm: ArmRecord,
    held: ArmStatistics,
    reading: ArmReading,
    record: ExperimentRecord,
    everyone: _Everyone,
    *,
    night: date | None,
    beside: BesideBacktest | None,
    encoder: EncoderCheck | None,
) -> ArmReport:
    rule, fraction = record.rules.checklist, record.experiment.equity_fraction
    newest = outcomes.newest_trades(connection, arm.id, rule.long_window)
    results = [trade.result for trade in newest]
    profit = statistics.profit_by_day(connection, arm.id, days=DAILY_WINDOW)
    is_champion = arm.place.role is ArmRole.CHAMPION
    champion = record.arm_of(record.experiment.champion)
    standing = reading.standing
    return ArmReport(
        arm=arm,
        statistics=held,
        reading=reading,
        short=window_numbers(newest, window=rule.window, nominal_fraction=fraction),
        short_interval=profit_factor_interval(results[-rule.window :]),
        long=window_numbers(newest, window=rule.long_window, nominal_fraction=fraction),
        long_interval=profit_factor_interval(results),
        checklist=() if is_champion else checklist.rows(reading, rule),
        encoder=None
        if encoder is None
        else encoder_row(encoder, rule, profile=record.experiment.profile),
        encoder_run=None if encoder is None else encoder.run_id,
        profit_by_day=profit,
        daily=_daily(profit, held, record),
        contribution=everyone.contribution_of(profit),
        evidence=() if standing is None else reasons_of(standing, rules=record.rules),
        evidence_night=night,
        claims=None
        if reading.claims is None
        else unreported(reading.claims, rule=record.rules.ladder),
        on_paper=pairing.on_paper(
            connection, arm_id=arm.id, champion_id=champion.id, rule=record.rules.fill_gap
        ),
        beside_backtest=beside,
    )


def _daily(
    profit: Mapping[date, Decimal], held: ArmStatistics, record: ExperimentRecord
) -> DailyNumbers:
    earned_before = held.sums.pnl - sum(profit.values())
    return daily_numbers(profit, starting_capital=record.experiment.capital + earned_before)


def decision_history(
    engine: Engine, name: str, *, newest: int | None = None
) -> list[DecisionRecord]:
    """Return an experiment's decisions, newest first."""
    with snapshot(engine) as connection:
        experiments.load(connection, name)
        return decisions.of_experiment(connection, name, newest=newest)


def allocation_history(engine: Engine, name: str) -> list[tuple[Allocation, datetime]]:
    """Return an experiment's allocation versions, oldest first."""
    with snapshot(engine) as connection:
        experiments.load(connection, name)
        return decisions.allocations(connection, name)


def decision_json(decision: DecisionRecord) -> dict[str, Any]:
    """Return a decision with its reasons as the API and the CLI print it."""
    return {
        "id": decision.id,
        "experiment": decision.experiment,
        "kind": decision.kind.value,
        "trading_day": None if decision.trading_day is None else decision.trading_day.isoformat(),
        "decided_at": decision.decided_at.isoformat(),
        "actor": decision.actor,
        "reason": decision.reason,
        "profile": decision.profile,
        "strategy": decision.strategy,
        "seed": decision.seed,
        "code_version": decision.code_version,
        "inputs": dict(decision.inputs),
        "inputs_digest": decision.inputs_digest,
        "reasons": dict(decision.reasons),
        "allocation_version": decision.version,
    }


def _succession_json(made: DecisionRecord) -> dict[str, str]:
    told = {key: decision_json(made)[key] for key in ("kind", "decided_at", "actor", "reason")}
    return {**told, "demoted": made.inputs["demoted"]}


def allocation_json(versions: Sequence[tuple[Allocation, datetime]]) -> list[dict[str, Any]]:
    """Return allocation versions as the API prints them."""
    return [
        {
            "version": made.version,
            "created_at": at.isoformat(),
            "champion": made.champion,
            "traffic_allocation": {p: part / WHOLE_PPM for p, part in made.ppm.items()},
        }
        for made, at in versions
    ]
