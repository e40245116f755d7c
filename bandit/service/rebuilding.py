"""Count everything again from outcomes and revisions, compare with what is stored, and repair."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from bandit.core.errors import InvalidInput
from bandit.core.evidence import Tally
from bandit.core.exploration import Explored
from bandit.core.fill_gap import FillGap
from bandit.core.model import PolicyName, checked_instant
from bandit.core.paper_days import PaperSums
from bandit.core.performance import ClosedTrade
from bandit.core.tally import Fold, folded, is_checkpoint
from bandit.service import pairing, scoring
from bandit.service.counting import windows_of
from bandit.storage import (
    audit,
    bases,
    evidence,
    experiments,
    exploration,
    paper_days,
    recounting,
    shadows,
    statistics,
)
from bandit.storage.engine import snapshot, taking_long, transaction
from bandit.storage.experiments import ExperimentRecord
from bandit.storage.statistics import ArmStatistics, ArmTerms, ArmWindows

_Key = TypeVar("_Key")
_Counted = TypeVar("_Counted", Tally, FillGap, PaperSums, Explored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A stored number that is not what an arm's outcomes say; `rows`: one too many or too few."""

    experiment: str
    policy: PolicyName
    table: str
    column: str

    def __str__(self) -> str:
        return f"{self.experiment}/{self.policy}: {self.table}.{self.column}"

    def to_json(self) -> dict[str, str]:
        """Return what `liveops ledger rebuild --json` prints."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many arms were counted again, and every column in which one differed."""

    arms: int
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmNumbers:
    """What an arm's outcomes amount to."""

    statistics: ArmStatistics
    windows: ArmWindows

    def to_json(self) -> dict[str, Any]:
        """Return the numbers under the report's names; no NaN, no Infinity."""
        sums, fold = self.statistics.sums, self.statistics.fold
        return {
            "outcomes": sums.n_outcomes,
            "trades": sums.n_trades,
            "wins": sums.n_wins,
            "losses": sums.n_losses,
            "pnl": f"{sums.pnl:f}",
            "fees": f"{sums.fees:f}",
            "profit_factor": sums.profit_factor.to_json(),
            "drawdown_percent": fold.equity.drawdown_percent,
            "drawdown_max_percent": fold.equity.drawdown_max_percent,
            "losing_streak_max": fold.streaks.longest_losing,
            "pf_30": self.windows.short.profit_factor.to_json(),
            "dd_30": self.windows.short.drawdown_percent,
            "pf_150": self.windows.long.profit_factor.to_json(),
            "dd_150": self.windows.long.drawdown_percent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arm:
    terms: ArmTerms
    experiment_id: int
    experiment: str
    policy: PolicyName


def compare(engine: Engine, *, now: datetime) -> Comparison:
    """Count every arm again and name what differs; remembered for the metric.

    Memory does not grow with the history. Writers are not held up: statistics commit with the
    outcomes they come from, so one snapshot holds both.
    """
    now = checked_instant(now, field="now")
    arms = _arms(engine)
    found = Comparison(
        arms=len(arms), mismatches=tuple(m for arm in arms for m in _compared(engine, arm))
    )
    with transaction(engine) as connection:
        recounting.append_comparison(
            connection, now=now, arms=found.arms, mismatches=len(found.mismatches)
        )
    return found


def compare_once_a_day(engine: Engine, *, now: datetime) -> Comparison | None:
    """Compare, unless that was done on this UTC day already; then return None."""
    today = checked_instant(now, field="now").date()
    with snapshot(engine) as connection:
        newest = recounting.newest_comparison(connection)
    if newest is not None and newest[0].astimezone(UTC).date() == today:
        return None
    return compare(engine, now=now)


def newest_mismatches(engine: Engine) -> int | None:
    """Return how many columns differed when last compared; None when that never was."""
    with snapshot(engine) as connection:
        newest = recounting.newest_comparison(connection)
    return None if newest is None else newest[1]


def repair(engine: Engine, *, now: datetime, actor: str) -> Comparison:
    """Compare, write anew what differs, and return what differed.

    Outcomes of an arm wait while it is written anew. Every repaired arm leaves an audit row.
    """
    found = compare(engine, now=now)
    for arm in _arms(engine):
        wrong = [
            f"{m.table}.{m.column}"
            for m in found.mismatches
            if (m.experiment, m.policy) == (arm.experiment, arm.policy)
        ]
        if wrong:
            _repair(engine, arm, wrong, now=now, actor=actor)
    if found.mismatches:
        compare(engine, now=now)
    return found


def as_of(engine: Engine, experiment: str, policy: PolicyName, *, moment: datetime) -> ArmNumbers:
    """Count an arm's numbers as they were known at a past moment.

    Only what was recorded by then counts, each outcome in the version that was the newest then.
    Raises `UnknownName`, and `InvalidInput` for a moment whose outcomes have left the ledger.
    """
    moment = checked_instant(moment, field="moment")
    with snapshot(engine) as connection, taking_long(connection):
        record = experiments.load(connection, experiment)
        terms = _terms(record, record.arm_of(policy).id)
        return _counted(connection, terms, moment=moment)


def _arms(engine: Engine) -> list[_Arm]:
    with snapshot(engine) as connection:
        records = [experiments.load(connection, name) for name in experiments.names(connection)]
    return [
        _Arm(
            terms=_terms(record, arm.id),
            experiment_id=record.id,
            experiment=record.experiment.name,
            policy=arm.place.policy,
        )
        for record in records
        for arm in record.arms
    ]


def _terms(record: ExperimentRecord, arm_id: int) -> ArmTerms:
    rule = record.rules.checklist
    return ArmTerms(
        arm_id=arm_id,
        equity_fraction=record.experiment.equity_fraction,
        windows=(rule.window, rule.long_window),
    )


def _counted(
    connection: Connection,
    terms: ArmTerms,
    *,
    moment: datetime | None = None,
    passed: Callable[[Fold], None] = lambda _: None,
) -> ArmNumbers:
    """Count an arm from its base, where it has one; `passed` is told of every checkpoint."""
    base = bases.of_arm(connection, terms.arm_id)
    if moment is not None and base.recorded_to is not None and moment < base.recorded_to:
        rule = f"must not be before {base.recorded_to.isoformat()}: what was known then has aged"
        raise InvalidInput(field="moment", rule=rule, found=moment.isoformat())
    newest: deque[ClosedTrade] = deque(maxlen=max(terms.windows))

    def seen() -> Iterator[ClosedTrade]:
        for trade in recounting.trades(connection, terms.arm_id, at=moment):
            newest.append(trade)
            yield trade

    fold = base.fold
    for after in folded(fold, seen(), equity_fraction=terms.equity_fraction):
        fold = after
        if is_checkpoint(fold):
            passed(fold)
    sums = recounting.sums(connection, terms.arm_id, at=moment).plus_sums(base.sums)
    return ArmNumbers(
        statistics=ArmStatistics(arm_id=terms.arm_id, sums=sums, fold=fold),
        windows=windows_of(terms, list(newest)),
    )


def _compared(engine: Engine, arm: _Arm) -> Iterator[Mismatch]:
    with snapshot(engine) as connection, taking_long(connection):
        arm_id = arm.terms.arm_id
        checkpoints = _Checkpoints(recounting.checkpoints(connection, arm_id))
        numbers = _counted(connection, arm.terms, passed=checkpoints.compare)
        checkpoints.end()
        stored = recounting.stored_columns(connection, arm_id)
        expected = statistics.columns_of(numbers.statistics, numbers.windows)
        wrong = {
            "arm_statistics": [name for name in expected if expected[name] != stored[name]],
            "arm_days": recounting.wrong_day_columns(connection, arm_id),
            "equity_checkpoints": sorted(checkpoints.wrong),
        } | _wrong_evidence(connection, arm)
    for table, columns in wrong.items():
        for column in columns:
            yield Mismatch(experiment=arm.experiment, policy=arm.policy, table=table, column=column)


def _wrong_evidence(connection: Connection, arm: _Arm) -> dict[str, list[str]]:
    """Name the columns in which stored evidence differs from the results it is counted from."""
    arm_id = arm.terms.arm_id
    drawn = scoring.recounted(connection, arm.experiment_id, arm_id)
    paper = pairing.recounted(connection, arm_id)
    return {
        "evidence_cohorts": _wrong_rows(evidence.tallies(connection, arm_id), drawn),
        "paired_cohorts": _wrong_rows(
            evidence.tallies(connection, arm_id, table="paired_cohorts"), paper.pairs
        ),
        "fill_gaps": _differing(shadows.gap_of(connection, arm_id), paper.gap),
        "paper_days": _wrong_rows(paper_days.by_key(connection, arm_id), paper.days),
        "explored": _differing(
            exploration.of_arm(connection, arm_id), exploration.recounted(connection, arm_id)
        ),
    }


def _wrong_rows(stored: Mapping[_Key, _Counted], counted: Mapping[_Key, _Counted]) -> list[str]:
    wrong = {"rows"} if stored.keys() != counted.keys() else set()
    for key in stored.keys() & counted.keys():
        wrong.update(_differing(stored[key], counted[key]))
    return sorted(wrong)


def _differing(ours: _Counted, theirs: _Counted) -> list[str]:
    return [name for name in ours.__slots__ if getattr(ours, name) != getattr(theirs, name)]


class _Checkpoints:
    """Stored checkpoints, compared one by one with those that are counted again."""

    def __init__(self, stored: Iterator[dict[str, Any]]) -> None:
        self._stored = stored
        self.wrong: set[str] = set()

    def compare(self, expected: Fold) -> None:
        stored = next(self._stored, None)
        if stored is None:
            self.wrong.add("rows")
            return
        counted = statistics.checkpoint_columns(expected)
        self.wrong |= {name for name in counted if stored[name] != counted[name]}

    def end(self) -> None:
        if next(self._stored, None) is not None:
            self.wrong.add("rows")


def _repair(engine: Engine, arm: _Arm, wrong: Sequence[str], *, now: datetime, actor: str) -> None:
    with transaction(engine) as connection, taking_long(connection):
        arm_id = arm.terms.arm_id
        # Whoever takes a decision, its results may count in this arm's evidence: all stand still.
        statistics.lock(connection, experiments.arm_ids(connection, arm.experiment_id))
        recounting.drop_checkpoints(connection, arm_id)
        passed: list[Fold] = []
        numbers = _counted(connection, arm.terms, passed=passed.append)
        statistics.add_checkpoints(connection, arm_id, passed)
        statistics.write(connection, numbers.statistics, numbers.windows)
        recounting.replace_days(connection, arm_id)
        counted = scoring.recounted(connection, arm.experiment_id, arm_id)
        evidence.replace(connection, arm_id, counted)
        paper = pairing.recounted(connection, arm_id)
        evidence.replace(connection, arm_id, paper.pairs, table="paired_cohorts")
        shadows.replace_gap(connection, arm_id, paper.gap)
        paper_days.replace(connection, arm_id, paper.days)
        exploration.recount(connection, arm.experiment_id, arm_id)
        audit.append(
            connection,
            now=now,
            actor=actor,
            action="rebuild",
            subject=f"{arm.experiment}/{arm.policy}",
            details={"columns": list(wrong)},
        )
