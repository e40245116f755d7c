"""One night: read, decide, make lawful, write; at most once per experiment and trading day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine

from bandit import __version__
from bandit.core import checklist, night, succession
from bandit.core.checklist import ArmRow
from bandit.core.claims import Draws
from bandit.core.errors import StaleEpoch
from bandit.core.gates import Performance
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import check
from bandit.core.merits import performance_of
from bandit.core.model import (
    ArmRole,
    ArmStatus,
    DecisionKind,
    Profile,
    checked_instant,
    checked_text,
)
from bandit.core.night import NightDecision
from bandit.core.reading import ArmReading, Throttled, Windows
from bandit.core.reentry import Return
from bandit.service import exploring, pairing, scoring, settling, standing, weighing
from bandit.service.experiments import apply_verb, succeed
from bandit.storage import audit, decisions, experiments, locks, outcomes
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ArmRecord, ExperimentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a night did: its scaling decision, those on single arms, or that it was done."""

    decision: DecisionRecord
    actions: tuple[DecisionRecord, ...]
    already_done: bool


def scale(engine: Engine, name: str, *, now: datetime, actor: str) -> Night:
    """Decide tonight's traffic of an experiment, once per UTC day.

    First the checklist throttles and halts, then the strategy proposes, then the limits make it
    lawful. A second run of the same night changes nothing and returns the night's decision.
    Raises `LockHeldElsewhere` when another process scales the experiment now, `LedgerUnavailable`
    when another may by now, `StaleEpoch` when the experiment changed while the night was computed;
    nothing is written then.
    """
    checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    day = now.astimezone(UTC).date()
    with snapshot(engine) as connection:
        experiment_id = experiments.load(connection, name).id
    with locks.use_case(engine, experiment_id, doing=f"scaling {name}") as require:
        with snapshot(engine) as connection:
            done = decisions.of_night(connection, name, day)
            record = experiments.load(connection, name)
            readings = read_arms(connection, record, record.kept_arms)
            readings = with_evidence(connection, record, readings, now=now)
            readings = _with_shown(connection, record, readings)
            found = settling.settled(connection, record, now=now)
            readings = [replace(r, claims=found.claims.get(r.place.policy)) for r in readings]
        if done is not None:
            return Night(decision=done, actions=(), already_done=True)
        with transaction(engine) as connection:
            locks.gate_exclusive(connection, record.id)
            require()
            if experiments.epoch_of(connection, record.id) != record.epoch:
                raise StaleEpoch(f"experiment {name} changed while the night was computed")
            record = experiments.load(connection, name)  # killed since, perhaps
            return _write(connection, record, readings, found.draws, day=day, now=now, actor=actor)


def read_arms(
    connection: Connection, record: ExperimentRecord, arms: Sequence[ArmRecord]
) -> list[ArmReading]:
    """Return the numbers every decision about these arms of an experiment reads."""
    rule, fraction = record.rules.checklist, record.experiment.equity_fraction
    ids = [arm.id for arm in arms]
    newest = outcomes.newest_trades_of(connection, ids, rule.long_window)
    beside = outcomes.champion_over_windows(connection, ids)
    since = decisions.judged_since(connection, record.id, [arm.place.policy for arm in arms])

    def reading(arm: ArmRecord) -> ArmReading:
        trades, began = newest[arm.id], since.get(arm.place.policy)
        windows = Windows.of(trades, rule=rule, nominal_fraction=fraction)
        resumed = None
        if began is not None:
            fresh = [trade for trade in trades if trade.closed_at > began]
            resumed = Windows.of(fresh, rule=rule, nominal_fraction=fraction).judged
        return ArmReading(
            place=arm.place,
            pf_short=windows.pf_short,
            pf_long=windows.pf_long,
            dd_long_percent=windows.dd_long_percent,
            pf_prod=beside[arm.id],
            resumed=resumed,
        )

    return [reading(arm) for arm in arms]


def with_evidence(
    connection: Connection,
    record: ExperimentRecord,
    readings: Sequence[ArmReading],
    *,
    now: datetime,
) -> list[ArmReading]:
    """Add what evidence amounts to, what the strategy counts, and who the checklist throttled."""
    found = standing.of_challengers(connection, record, now=now)
    counted = weighing.moments(connection, record, day=now.astimezone(UTC).date())
    return [
        replace(
            reading,
            standing=found.get(reading.place.policy),
            moments=counted.get(reading.place.policy),
            throttled=_throttled(connection, record, record.arm_of(reading.place.policy)),
        )
        for reading in readings
    ]


def shown(connection: Connection, record: ExperimentRecord, arm: ArmRecord) -> Performance:
    """Measure what the gates ask for, of an arm's newest live trades at nominal size."""
    trades = outcomes.newest_marked(connection, arm.id, succession.TRADES_JUDGED)
    # Every trade of the arm has 1 at stake, which is this part of the capital.
    fraction = Decimal(str(record.experiment.equity_fraction))
    return performance_of(trades, starting_capital=1 / fraction)


def _with_shown(
    connection: Connection, record: ExperimentRecord, readings: Sequence[ArmReading]
) -> list[ArmReading]:
    """Add what gates judge to the arms that the night may promote; of others it costs nothing."""
    return [
        replace(reading, shown=shown(connection, record, record.arm_of(reading.place.policy)))
        if night.may_succeed(reading, rules=record.rules)
        else reading
        for reading in readings
    ]


def _throttled(
    connection: Connection, record: ExperimentRecord, arm: ArmRecord
) -> Throttled | None:
    place = arm.place
    if place.status is not ArmStatus.THROTTLED:
        return None
    found = decisions.throttled_by(
        connection, record.id, place.policy, check=checklist.PROFIT_FACTOR
    )
    if found is None:
        return None
    window, reaching = record.rules.checklist.long_window, found.since.date()
    paper = pairing.paper_factor(connection, arm.id, window=window, reaching=reaching)
    return Throttled(since=found.since, held=found.held, paper=paper)


def _write(
    connection: Connection,
    record: ExperimentRecord,
    readings: Sequence[ArmReading],
    draws: Draws | None,
    *,
    day: date,
    now: datetime,
    actor: str,
) -> Night:
    experiment = record.experiment
    decided = night.decide(
        readings,
        rules=record.rules,
        limits=record.limits,
        profile=experiment.profile,
        strategy=experiment.strategy,
        seed=night.seed_of(experiment.strategy, record.salt, day),
        now=now,
        killed=record.is_killed,
    )
    inputs = inputs_of(readings)
    for reading, row in decided.actions:
        act(connection, experiment.name, reading, row, inputs=inputs, now=now, actor=actor)
    for found in decided.back:
        _bring_back(connection, experiment.name, found, inputs=inputs, now=now, actor=actor)
    if experiment.profile is not Profile.OBSERVE:
        experiments.set_rungs(connection, record.id, decided.rungs)
    if decided.promotion is not None:
        _promote(connection, experiment.name, decided, inputs=inputs, day=day, now=now, actor=actor)
    record = experiments.load(connection, experiment.name)
    assert decided.before == {place.policy: place.ppm for place in record.places}
    scoring.fix_terms(connection, record, now=now)
    exploring.expect(connection, record)
    seen = inputs | {"draws": None if draws is None else asdict(draws)}
    decision_id = _scale(connection, record, decided, inputs=seen, day=day, now=now, actor=actor)
    acted = len(decided.actions) + len(decided.back) + (decided.promotion is not None)
    made = decisions.of_experiment(connection, experiment.name, newest=acted + 1)
    *actions, decision = reversed(made)
    assert decision.id == decision_id
    return Night(decision=decision, actions=tuple(actions), already_done=False)


def act(
    connection: Connection,
    name: str,
    reading: ArmReading,
    row: ArmRow,
    *,
    inputs: Mapping[str, object],
    now: datetime,
    actor: str,
) -> None:
    """Do what a flagged row of the checklist asks for, in a transaction that holds the gate."""
    reason = row.reason
    assert reason.value is not None
    text = f"{row.metric} {reason.value:.4g} breaks its limit {reason.limit:g}"
    apply_verb(
        connection,
        experiments.load(connection, name),
        reading.place.policy,
        row.action,
        reason=text,
        inputs=inputs,
        reasons={reading.place.policy: [reason.to_json()]},
        now=now,
        actor=actor,
    )


def _bring_back(
    connection: Connection,
    name: str,
    found: Return,
    *,
    inputs: Mapping[str, object],
    now: datetime,
    actor: str,
) -> None:
    """Let a throttled arm decide again, in a transaction that holds the gate."""
    recovered = found.reasons[-1]
    assert recovered.value is not None
    apply_verb(
        connection,
        experiments.load(connection, name),
        found.policy,
        ArmVerb.RESUME,
        reason=f"{recovered.check} {recovered.value:.4g} reaches {recovered.limit:g}",
        inputs=inputs,
        reasons={found.policy: [reason.to_json() for reason in found.reasons]},
        now=now,
        actor=actor,
        part=found.part,
    )


def _promote(
    connection: Connection,
    name: str,
    decided: NightDecision,
    *,
    inputs: Mapping[str, object],
    day: date,
    now: datetime,
    actor: str,
) -> None:
    """Make the night's candidate the champion, in a transaction that holds the gate."""
    made = decided.promotion
    assert made is not None
    succeed(
        connection,
        experiments.load(connection, name),
        made.policy,
        made.ppm,
        kind=DecisionKind.PROMOTE,
        reason=f"promoted by the night of {day}: evidence {made.over_bar:.2f} over its bar",
        inputs={"night": day.isoformat(), "rungs": decided.rungs, **inputs},
        reasons={made.policy: [reason.to_json() for reason in made.reasons]},
        now=now,
        actor=actor,
    )


def _scale(
    connection: Connection,
    record: ExperimentRecord,
    decided: NightDecision,
    *,
    inputs: Mapping[str, object],
    day: date,
    now: datetime,
    actor: str,
) -> int:
    profile, proposed = record.experiment.profile, decided.proposal.ppm
    kind = decided.kind
    ruled = {"limits": asdict(record.limits), "rules": asdict(record.rules)}
    decision_id = decisions.append(
        connection,
        record,
        kind=kind,
        trading_day=day,
        seed=night.seed_of(record.experiment.strategy, record.salt, day),
        now=now,
        actor=actor,
        reason=_summary(record, decided, kind),
        code_version=__version__,
        inputs={**inputs, **ruled, **decided.results()},
        reasons=decided.reasons(),
    )
    assert decision_id is not None
    version = None
    if kind is DecisionKind.RESCALE:
        places = [arm.reading.place for arm in decided.arms]
        check(proposed, arms=places, limits=record.limits, profile=profile, kind=kind)
        version = decisions.append_allocation(
            connection, record, proposed, decision_id=decision_id, now=now
        )
    audit.append(
        connection,
        now=now,
        actor=actor,
        action="scale",
        subject=record.experiment.name,
        details={"decision": decision_id, "version": version, "night": day.isoformat()},
    )
    return decision_id


def _summary(record: ExperimentRecord, decided: NightDecision, kind: DecisionKind) -> str:
    if decided.promotion is not None:
        return f"{decided.promotion.policy} became the champion, and nothing else moves that night"
    after = decided.proposal.ppm
    # The champion is left out: it takes or gives the difference.
    changed = ", ".join(
        f"{place.policy} {place.ppm / 10_000:.2f}% to {after[place.policy] / 10_000:.2f}%"
        for place in record.places
        if place.role is ArmRole.CHALLENGER and after[place.policy] != place.ppm
    )
    if not changed:
        return "no arm's conditions ask for a change"
    if kind is DecisionKind.HOLD:
        why = "killed" if record.is_killed else record.experiment.profile
        changed = f"{why}: would move {changed}"
    return changed[:1000]


def inputs_of(readings: Sequence[ArmReading]) -> dict[str, object]:
    """Return what a decision writes down of the numbers it read."""
    return {"readings": [reading.to_json() for reading in readings]}
