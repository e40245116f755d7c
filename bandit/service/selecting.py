"""Choose in which instruments an experiment opens positions, and hold opportunities against it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine

from bandit.core.errors import Conflict, NotSelected
from bandit.core.model import checked_instant, checked_text
from bandit.core.selection import Selection, SelectionRule, select
from bandit.service.routing_table import Opportunity, RoutingTable
from bandit.storage import audit, experiments, locks, selections
from bandit.storage.engine import snapshot, transaction
from bandit.storage.experiments import ExperimentRecord

REMEMBERED: Final = timedelta(seconds=2)
"""How long a replica may go by the selection that it read last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionReport:
    """The selection of an experiment, None before the first one.

    `is_new` where it was just made, or would have been. A new one may be made at `due_at`; None
    means now.
    """

    experiment: str
    rule: SelectionRule
    selection: Selection | None
    due_at: datetime | None
    is_new: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it and the API answers."""
        made = self.selection
        return {
            "experiment": self.experiment,
            "top_k": self.rule.top_k,
            "universe": list(self.rule.universe),
            "chosen": [] if made is None else list(made.chosen),
            "scores": {} if made is None else dict(made.scores),
            "since": None if made is None else made.at.isoformat(),
            "due_at": None if self.due_at is None else self.due_at.isoformat(),
            "is_new": self.is_new,
        }


def report(engine: Engine, name: str) -> SelectionReport:
    """Return the selection in force; raises `UnknownName`, and `Conflict` where none is made."""
    with snapshot(engine) as connection:
        record = _selecting(experiments.load(connection, name))
        return _report(record, selections.newest(connection, record.id))


def make(
    engine: Engine,
    name: str,
    scores: Mapping[str, float | None],
    *,
    reason: str,
    now: datetime,
    actor: str,
    is_dry: bool = False,
) -> SelectionReport:
    """Choose the strongest symbols by `scores`, unless the time between two has not passed yet.

    Then, and with `is_dry`, nothing is stored; the report says what is, or would be, in force.
    Raises `UnknownName`, `Conflict` where the experiment does not select, `InvalidInput` for other
    symbols and where no score is known, and `LockHeldElsewhere`.
    """
    now = checked_instant(now, field="now")
    actor = checked_text(actor, field="actor", length_max=200)
    reason = checked_text(reason, field="reason", length_max=1000)
    before = report(engine, name)
    chosen = select(scores, rule=before.rule, now=now)
    with snapshot(engine) as connection:
        record = experiments.load(connection, name)
    with (
        locks.use_case(engine, record.id, doing=f"selecting in {name}") as require,
        transaction(engine) as connection,
    ):
        known = selections.newest(connection, record.id)
        if known is not None and now < known.due_at(before.rule):
            return _report(record, known)
        if not is_dry:
            selections.insert(connection, record.id, chosen, actor=actor, reason=reason)
            told = {"chosen": list(chosen.chosen), "scores": chosen.scores, "reason": reason}
            audit.append(
                connection, now=now, actor=actor, action="selection", subject=name, details=told
            )
            require()
    return _report(record, chosen, is_new=True)


class Selections:
    """In which instruments experiments open positions, as read at most `REMEMBERED` ago."""

    def __init__(self, engine: Engine) -> None:
        """Start with nothing remembered."""
        self._engine = engine
        self._known: dict[int, tuple[datetime, Selection | None]] = {}
        self._lock = threading.Lock()

    def refused(
        self, table: RoutingTable, asked: Sequence[Opportunity], *, now: datetime
    ) -> dict[int, NotSelected]:
        """Return which of these opportunities, by their place, must not open a position now.

        One that was assigned before keeps its answer; what is about an open position, or was
        decided elsewhere, is never refused.
        """
        if not table.record.rules.selection.enabled:
            return {}
        selection = self._newest(table.record.id, now)
        chosen = () if selection is None else selection.chosen
        outside = {
            place: each
            for place, each in enumerate(asked)
            if each.may_be_drawn and each.instrument not in chosen
        }
        if not outside:
            return {}
        ids = {place: table.id_of(each) for place, each in outside.items()}
        with snapshot(self._engine) as connection:
            answered = selections.decided(connection, list(ids.values()))
        name = table.record.experiment.name
        return {
            place: _refusal(name, each.instrument, selection)
            for place, each in outside.items()
            if ids[place] not in answered
        }

    def _newest(self, experiment_id: int, now: datetime) -> Selection | None:
        with self._lock:
            known = self._known.get(experiment_id)
        if known is not None and timedelta(0) <= now - known[0] < REMEMBERED:
            return known[1]
        with snapshot(self._engine) as connection:
            found = selections.newest(connection, experiment_id)
        with self._lock:
            self._known[experiment_id] = (now, found)
        return found


def _refusal(name: str, instrument: str, selection: Selection | None) -> NotSelected:
    if selection is None:
        return NotSelected(f"{name} opens no position before its first selection is made")
    among = ", ".join(selection.chosen)
    return NotSelected(
        f"{name} opens positions in {among} since {selection.at.isoformat()}, not in {instrument}"
    )


def _selecting(record: ExperimentRecord) -> ExperimentRecord:
    if not record.rules.selection.enabled:
        raise Conflict(
            f"{record.experiment.name} opens positions in every instrument: "
            "portfolio.cross_sectional was not enabled when it was opened"
        )
    return record


def _report(
    record: ExperimentRecord, selection: Selection | None, *, is_new: bool = False
) -> SelectionReport:
    rule = record.rules.selection
    return SelectionReport(
        experiment=record.experiment.name,
        rule=rule,
        selection=selection,
        due_at=None if selection is None else selection.due_at(rule),
        is_new=is_new,
    )
