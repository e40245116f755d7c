"""The weekly report, read in one snapshot: the week's facts, and what stands now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Engine

from bandit.core.kill_switch import KillKind
from bandit.core.ladder import CHAMPION_DECAY
from bandit.core.model import (
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Rung,
    Verdict,
    checked_instant,
)
from bandit.core.performance import nominal_drawdown
from bandit.core.profit_factor import ProfitFactor
from bandit.core.promotion import rollback_advice
from bandit.core.reconciling import ReconciliationState
from bandit.core.tally import DaySums
from bandit.core.week import Week
from bandit.core.weekly import (
    AccountWeek,
    ArmFigures,
    ArmWeek,
    Change,
    DriftState,
    Event,
    ExperimentWeek,
    Move,
    WeeklyReport,
)
from bandit.service import accounts, charting, explaining
from bandit.service.accounts import AccountReport
from bandit.service.charting import Life
from bandit.storage import (
    account_equity,
    decisions,
    drift,
    experiments,
    guards,
    notices,
    outcomes,
    statistics,
)
from bandit.storage import accounts as stored_accounts
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import snapshot
from bandit.storage.experiments import ArmRecord, ExperimentRecord
from bandit.storage.statistics import ArmStatistics

ARTIFACTS_MAX = 50
"""So many artefacts whose drift a report tells of, those checked last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyReading:
    """The report of a week, and the life of each of its experiments for the pictures."""

    report: WeeklyReport
    lives: Mapping[str, Life]


def read(engine: Engine, week: Week, *, now: datetime) -> WeeklyReading:
    """Read the report of `week`; what was opened later is not in it."""
    checked_instant(now, field="now")
    with snapshot(engine) as connection:
        names = experiments.names(connection)
        records = [
            record
            for record in (experiments.load(connection, name) for name in names)
            if record.opened_at < week.end
        ]
        held = accounts.read(connection, None, day=now.astimezone(UTC).date())
        nights = {
            r.id: decisions.newest_night(connection, r.experiment.name, r.id) for r in records
        }
        kinds, told = notices.told_between(connection, since=week.start, until=week.end)
        report = WeeklyReport(
            week=week,
            made_at=now,
            accounts=tuple(_accounts(connection, held, records, week)),
            experiments=tuple(_experiment(connection, r, nights[r.id], week) for r in records),
            events=tuple(_events(connection, week)),
            notices=kinds,
            told=told,
            drift=tuple(_drift(connection, records, week)),
            awaiting=(
                *(text for account in held for text in _awaited_of(account)),
                *(text for r in records for text in _awaited_in(r, nights[r.id])),
            ),
        )
        lives = {r.experiment.name: charting.read_life(connection, r) for r in records}
        return WeeklyReading(report=report, lives=lives)


def _accounts(
    connection: Connection,
    held: Sequence[AccountReport],
    records: Sequence[ExperimentRecord],
    week: Week,
) -> Iterator[AccountWeek]:
    for account in held:
        name = account.record.name
        mine = [r.experiment for r in records if r.experiment.account_name == name]
        if not mine:
            continue
        earned = account_equity.realised_by_day(connection, name, since=date.min)
        capital = sum((experiment.capital for experiment in mine), Decimal(0))
        before = sum((money for day, money in earned.items() if day < week.monday), Decimal(0))
        yield AccountWeek(
            name=name,
            currency=account.record.currency,
            opening=capital + before,
            by_day={day: earned[day] for day in week.days if day in earned},
            equity_now=account.equity.equity,
            drawdown_percent_now=account.equity.drawdown_percent,
            is_killed=account.record.is_killed,
        )


def _experiment(
    connection: Connection, record: ExperimentRecord, night: DecisionRecord | None, week: Week
) -> ExperimentWeek:
    experiment = record.experiment
    ids = [arm.id for arm in record.arms]
    until = week.monday + timedelta(days=7)
    days = statistics.sums_by_day(connection, ids, since=week.monday, until=until)
    held = statistics.of_arms(connection, ids)
    kept = {arm.id for arm in record.kept_arms}
    return ExperimentWeek(
        name=experiment.name,
        account=experiment.account_name,
        currency=experiment.currency,
        champion=experiment.champion,
        arms=tuple(
            ArmWeek(
                policy=arm.place.policy,
                role=arm.place.role,
                status=arm.place.status,
                ppm=int(arm.place.ppm),
                week=_figures(connection, arm, days[arm.id], record, week),
                life=_life(held[arm.id]),
                by_day={day: sums.pnl for day, sums in days[arm.id].items()},
                evidence=_evidence(connection, record, arm, night),
            )
            for arm in sorted(record.arms, key=lambda arm: arm.place.role is not ArmRole.CHAMPION)
            if arm.joined_at < week.end and (arm.id in kept or days[arm.id])
        ),
        changes=tuple(_changes(connection, experiment.name, week)),
    )


def _figures(
    connection: Connection,
    arm: ArmRecord,
    days: Mapping[date, DaySums],
    record: ExperimentRecord,
    week: Week,
) -> ArmFigures:
    by_day = days.values()
    n = sum(sums.n_trades for sums in by_day)
    results = outcomes.results_between(connection, arm.id, since=week.start, until=week.end)
    deepest = None
    if len(results) == n:  # else some have left for an archive
        deepest = nominal_drawdown(results, record.experiment.equity_fraction)
    return ArmFigures(
        trades=n,
        wins=sum(sums.n_wins for sums in by_day),
        pnl=sum((sums.pnl for sums in by_day), Decimal(0)),
        profit_factor=ProfitFactor.from_sums(
            gross_profit=sum((sums.return_gain for sums in by_day), Decimal(0)),
            gross_loss=sum((sums.return_loss for sums in by_day), Decimal(0)),
            n=n,
            n_losses=sum(sums.n_losses for sums in by_day),
        ),
        drawdown_percent=deepest,
    )


def _life(held: ArmStatistics) -> ArmFigures:
    sums = held.sums
    return ArmFigures(
        trades=sums.n_trades,
        wins=sums.n_wins,
        pnl=sums.pnl,
        profit_factor=sums.profit_factor,
        drawdown_percent=held.fold.equity.drawdown_max_percent,
    )


def _evidence(
    connection: Connection, record: ExperimentRecord, arm: ArmRecord, night: DecisionRecord | None
) -> str:
    if arm.place.role is ArmRole.CHAMPION:
        return "It is the champion."
    if arm.place.status is ArmStatus.RETIRED:
        return "It has retired."
    found = None if night is None else explaining.outlook_of(connection, record, arm, night)
    if found is None:
        return "No night has looked at it yet."
    proof = found.proof
    own = f"Evidence {proof.evidence:.2f} of {proof.needed:.2f} from {proof.decisions} decisions."
    return f"{found.in_short(night_promotes=record.night_promotes)} {own}"


def _changes(connection: Connection, name: str, week: Week) -> Iterator[Change]:
    parts = {made.version: made.ppm for made, _ in decisions.allocations(connection, name)}
    for made in decisions.between(connection, name, since=week.start, until=week.end):
        if made.kind is DecisionKind.HOLD:
            continue
        before: Mapping[PolicyName, int] = {}
        after: Mapping[PolicyName, int] = {}
        if made.version is not None:
            before, after = parts.get(made.version - 1, {}), parts[made.version]
        yield Change(
            at=made.decided_at,
            kind=made.kind,
            by=made.actor,
            reason=made.reason,
            policy=made.inputs.get("policy"),
            moves=tuple(
                Move(policy=policy, before=before.get(policy), after=int(part))
                for policy, part in after.items()
                if before.get(policy) != part
            ),
        )


def _events(connection: Connection, week: Week) -> list[Event]:
    times = {"since": week.start, "until": week.end}
    found = []
    for account, event in stored_accounts.kill_events(connection, **times):
        said = "killed" if event.kind is KillKind.KILL else "released"
        title = f"Account {account} is {said} ({event.cause})"
        found.append(Event(at=event.at, title=title, by=event.actor, reason=event.reason))
    for whose, change in guards.changes_between(connection, **times):
        title = f"Performance guard of {whose}: {change.before} to {change.after}"
        if change.before is change.after:
            title = f"Performance guard of {whose} begins anew, {change.after}"
        found.append(Event(at=change.at, title=title, by=change.actor, reason=change.reason))
    return sorted(found, key=lambda event: event.at)


def _drift(
    connection: Connection, records: Collection[ExperimentRecord], week: Week
) -> Iterator[DriftState]:
    names = {arm.policy_sha: arm.place.policy for record in records for arm in record.arms}
    for run in drift.newest(connection, since=week.start, artifacts_max=ARTIFACTS_MAX):
        drifted = sorted({check.subject for check in run.checks if check.drifted})
        yield DriftState(
            subject=names.get(run.sha, run.sha[:12]),
            checked_at=run.checked_at,
            checks=len(run.checks),
            drifted=tuple(drifted),
        )


def _awaited_of(account: AccountReport) -> Iterator[str]:
    record, event, compared = account.record, account.record.newest, account.reconciliation
    if event is not None and record.killed_since is not None:
        since = f"since {record.killed_since.astimezone(UTC):%Y-%m-%d %H:%M}"
        yield (
            f"Account {record.name} is killed {since} ({event.cause}: {event.reason}): "
            f"`liveops release --account {record.name}` lets it trade again."
        )
    if compared is not None and compared.state is not ReconciliationState.AGREES:
        yield (
            f"Account {record.name} differs from what its bots tell ({compared.state}: "
            f"{compared.differs}): `liveops account show {record.name}` tells how."
        )


def _awaited_in(record: ExperimentRecord, night: DecisionRecord | None) -> Iterator[str]:
    name = record.experiment.name
    for arm in record.kept_arms:
        place = arm.place
        if place.status is ArmStatus.HALTED:
            yield (
                f"{place.policy} in {name} is halted ({arm.status_reason}): "
                f"`liveops resume --policy-sha {place.policy} --experiment {name}` brings it back, "
                "`liveops retire` ends it."
            )
        elif _waits_for_promotion(record, arm):
            yield (
                f"{place.policy} in {name} is eligible: "
                f"`liveops promote {name} {place.policy}` may make it the champion."
            )
    if night is None:
        return
    champion = record.arm_of(record.experiment.champion)
    for hold_out, reason in explaining.hold_outs(record, champion, night).items():
        if reason.check == CHAMPION_DECAY and reason.verdict is Verdict.FAIL:
            yield rollback_advice(record.experiment, hold_out)


def _waits_for_promotion(record: ExperimentRecord, arm: ArmRecord) -> bool:
    place = arm.place
    is_challenger = place.role is ArmRole.CHALLENGER
    return is_challenger and place.rung is Rung.ELIGIBLE and not record.night_promotes
