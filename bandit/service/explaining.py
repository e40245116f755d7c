"""Why an arm has the traffic it has, and when it may be decided: read, in one snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine

from bandit.core.errors import InvalidInput
from bandit.core.ladder import CHAMPION_DECAY, decays, newest_matured
from bandit.core.limits import arm_cap_of, champion_floor_of, headroom
from bandit.core.model import WHOLE_PPM, ArmRole, ArmStatus, PolicyName, Ppm, Profile
from bandit.core.outlook import Outlook, outlook
from bandit.core.reading import ArmReading
from bandit.core.reentry import reasons_to_return
from bandit.core.verdicts import Reason
from bandit.service import exploring, standing
from bandit.service.exploring import BudgetReport
from bandit.storage import arm_history, decisions, experiments, policies
from bandit.storage.arm_history import Move
from bandit.storage.decisions import DecisionRecord
from bandit.storage.engine import snapshot
from bandit.storage.experiments import ArmRecord, ExperimentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Within what a challenger's part may move, in ppm.

    `most` is what its rung allows, `least` what keeps it alive; the champion can give `left` more
    to the challengers together.
    """

    most: int
    least: int
    left: int

    def to_json(self) -> dict[str, float]:
        """Return the bounds as fractions."""
        return {name: getattr(self, name) / WHOLE_PPM for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that an arm's traffic follows from.

    `succession` made a champion one; None of others, and of one that the experiment opened with.
    `move` is the newest decision that changed its part, `stop` the one that took a stopped arm out
    of the traffic, `night` the newest night, `to_return` what that one asked of an arm that the
    checklist throttled, `hold_outs` how that one found the champion beside earlier ones. Forecasts
    are as of that night; only a challenger that has not retired has any.
    """

    record: ExperimentRecord
    arm: ArmRecord
    succession: DecisionRecord | None
    move: Move
    stop: DecisionRecord | None
    night: DecisionRecord | None
    to_return: tuple[Reason, ...]
    hold_outs: Mapping[PolicyName, Reason]
    bounds: Bounds | None
    champion_floor: int
    budget: BudgetReport
    outlook: Outlook | None

    @property
    def as_of(self) -> date | None:
        """The night that forecasts are made for."""
        return None if self.night is None else self.night.trading_day

    def reasons_of(self, decision: DecisionRecord) -> Sequence[Mapping[str, Any]]:
        """Return what a decision says of the arm."""
        found: Sequence[Mapping[str, Any]] = decision.reasons.get(self.arm.place.policy, ())
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as `liveops explain --json` prints it; no NaN, no Infinity."""
        place, record = self.arm.place, self.record
        return {
            "experiment": record.experiment.name,
            "policy": place.policy,
            "champion": record.experiment.champion,
            "profile": record.experiment.profile.value,
            "strategy": record.experiment.strategy.value,
            "killed": record.is_killed,
            "role": place.role.value,
            "status": place.status.value,
            "status_reason": self.arm.status_reason,
            "mode": place.mode.value,
            "rung": place.rung.value,
            "traffic_allocation": place.ppm / WHOLE_PPM,
            "champion_floor": self.champion_floor / WHOLE_PPM,
            "bounds": None if self.bounds is None else self.bounds.to_json(),
            "exploration": self.budget.to_json(),
            "succession": None if self.succession is None else self._decision_json(self.succession),
            "moved": self._move_json(self.move),
            "stopped": None if self.stop is None else self._decision_json(self.stop),
            "night": None if self.night is None else self._decision_json(self.night),
            "to_return": [reason.to_json() for reason in self.to_return],
            "hold_outs": {policy: r.to_json() for policy, r in self.hold_outs.items()},
            "outlook": None if self.outlook is None else _outlook_json(self.outlook),
        }

    def _move_json(self, move: Move) -> dict[str, Any]:
        before = None if move.before is None else move.before / WHOLE_PPM
        parts = {"before": before, "after": move.after / WHOLE_PPM}
        return self._decision_json(move.decision) | parts

    def _decision_json(self, decision: DecisionRecord) -> dict[str, Any]:
        day = decision.trading_day
        return {
            "id": decision.id,
            "kind": decision.kind.value,
            "night": None if day is None else day.isoformat(),
            "decided_at": decision.decided_at.isoformat(),
            "actor": decision.actor,
            "reason": decision.reason,
            "reasons": [dict(reason) for reason in self.reasons_of(decision)],
        }


def explain(engine: Engine, name: str, reference: str) -> Explanation:
    """Explain the arm of a policy, given by name, sha or unique sha prefix.

    Raises `UnknownName` or `AmbiguousName` with the candidates.
    """
    with snapshot(engine) as connection:
        record = experiments.load(connection, name)
        arm = record.arm_of(policies.by_reference(connection, reference).policy.name)
        place, limits = arm.place, record.limits
        night = decisions.newest_night(connection, name, record.id)
        is_champion = place.role is ArmRole.CHAMPION
        is_stopped = place.status is not ArmStatus.ACTIVE
        bounds = None
        if place.role is ArmRole.CHALLENGER and place.routable:
            bounds = Bounds(
                most=arm_cap_of(place, limits=limits, profile=record.experiment.profile),
                least=limits.arm_minimum_ppm,
                left=headroom(record.places, limits),
            )
        return Explanation(
            record=record,
            arm=arm,
            succession=decisions.newest_succession(connection, name) if is_champion else None,
            move=arm_history.newest_move(connection, record, arm),
            stop=arm_history.newest_stop(connection, record, arm) if is_stopped else None,
            night=night,
            to_return=() if night is None else _to_return(record, arm, night),
            hold_outs={} if night is None else hold_outs(record, arm, night),
            bounds=bounds,
            champion_floor=champion_floor_of(record.places, limits),
            budget=exploring.read(connection, record),
            outlook=None if night is None else outlook_of(connection, record, arm, night),
        )


def _to_return(
    record: ExperimentRecord, arm: ArmRecord, night: DecisionRecord
) -> tuple[Reason, ...]:
    """Return what the night held a throttled arm against, from what it stored."""
    profile, policy = record.experiment.profile, arm.place.policy
    stored = [row for row in night.inputs.get("readings", ()) if row["policy"] == policy]
    if profile is not Profile.GUARDED or arm.place.status is not ArmStatus.THROTTLED or not stored:
        return ()
    try:
        reading = ArmReading.from_json(stored[0])
    except InvalidInput:  # another release's night
        return ()
    return reasons_to_return(reading, rules=record.rules, now=night.decided_at)


def hold_outs(
    record: ExperimentRecord, arm: ArmRecord, night: DecisionRecord
) -> dict[PolicyName, Reason]:
    """Return what the night found of its champion, where that is this arm, beside earlier ones."""
    try:
        readings = [ArmReading.from_json(row) for row in night.inputs.get("readings", ())]
    except InvalidInput:  # another release's night
        return {}
    places = {reading.place.policy: reading.place for reading in readings}
    place = places.get(arm.place.policy)
    if place is None or not place.role is arm.place.role is ArmRole.CHAMPION:
        return {}
    return {
        reading.place.policy: reason
        for reading in readings
        if reading.standing is not None
        for reason in decays(reading.standing, rule=record.rules.ladder)
        if reason.check == CHAMPION_DECAY
    }


def outlook_of(
    connection: Connection, record: ExperimentRecord, arm: ArmRecord, night: DecisionRecord
) -> Outlook | None:
    """Forecast for what the newest night could know, whenever that was."""
    place, rule = arm.place, record.rules.ladder
    if place.role is ArmRole.CHAMPION or place.status is ArmStatus.RETIRED:
        return None
    known, family = standing.of_challenger(connection, record, arm, now=night.decided_at)
    champion = record.arm_of(record.experiment.champion).place
    both = Ppm(place.ppm + champion.ppm)
    return outlook(
        known,
        family=family,
        rule=rule,
        share=place.ppm / both if both else 0.0,
        until=newest_matured(now=night.decided_at, rule=rule),
    )


def _outlook_json(found: Outlook) -> dict[str, Any]:
    return {
        "rung": found.rung.value,
        "proof": found.proof.to_json(),
        "paper": None if found.paper is None else found.paper.to_json(),
        "faster": None if found.faster is None else found.faster.value.replace(" ", "_"),
        "harm": found.harm.to_json(),
        "profit_factor": found.factor.to_json(),
        "conditions": [reason.to_json() for reason in found.reasons],
    }
