"""When an arm that the checklist throttled comes back by itself (SPEC E3).

The throttle reads thirty trades, too few to tell a good arm from a poor one: without a way back it
stops every arm for ever. Only what the checklist throttled comes back: what a person stopped, and
what was halted, waits for a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bandit.core.allocators.fitting import stepped_down
from bandit.core.limits import ArmPlace, Limits, headroom
from bandit.core.model import ArmMode, ArmStatus, PolicyName, Ppm, Profile, Rung, Verdict
from bandit.core.reading import ArmReading, RampRule, Rules, Throttled
from bandit.core.verdicts import Reason, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """An arm that comes back: whose, what it comes back with, and why."""

    policy: PolicyName
    part: Ppm
    reasons: tuple[Reason, ...]


def returning(
    readings: Sequence[ArmReading],
    *,
    rules: Rules,
    limits: Limits,
    profile: Profile,
    now: datetime,
) -> tuple[Return, ...]:
    """Return the arms that come back tonight, in the order of the readings; in `guarded` only.

    To the letter nobody does, and where nights only observe nobody was throttled by one. An arm
    waits while the champion has nothing to give.
    """
    if profile is not Profile.GUARDED:
        return ()
    places = {reading.place.policy: reading.place for reading in readings}
    found = []
    for reading in readings:
        reasons = reasons_to_return(reading, rules=rules, now=now)
        if not reasons or any(reason.verdict is not Verdict.PASS for reason in reasons):
            continue
        part = part_of(reading, list(places.values()), rule=rules.ramp, limits=limits)
        if part is not None:
            policy = reading.place.policy
            found.append(Return(policy=policy, part=part, reasons=reasons))
            places[policy] = replace(reading.place, status=ArmStatus.ACTIVE, ppm=part)
    return tuple(found)


def reasons_to_return(reading: ArmReading, *, rules: Rules, now: datetime) -> tuple[Reason, ...]:
    """Hold a throttled arm against what its return asks for; nothing of an arm that is no such.

    Its evidence beside the champion must not speak against it, however softly. With results on
    paper it returns once they satisfy what the throttle asks of live ones; without, or where paper
    was shown to flatter, after `reentry_days`.
    """
    throttled, standing = reading.throttled, reading.standing
    if reading.place.status is not ArmStatus.THROTTLED or throttled is None or standing is None:
        return ()
    if throttled.paper is None or standing.fill_gap is Verdict.FAIL:
        return (_evidence(standing.mean_up), _waited(throttled, rules, now))
    paper = throttled.paper
    return (
        _evidence(standing.mean_up if standing.paper_up is None else standing.paper_up),
        at_least(
            "profit factor on paper",
            paper.value,
            rules.checklist.pf_throttle,
            note=f"{paper.state} ({paper.n} trades)",
        ),
    )


def part_of(
    reading: ArmReading, places: Sequence[ArmPlace], *, rule: RampRule, limits: Limits
) -> Ppm | None:
    """Return what an arm comes back with; None where nobody has that to give.

    A step down from what it held where it is proven, else the least that a live arm has.
    """
    if reading.place.mode is not ArmMode.LIVE:
        return Ppm(0)
    room = headroom(places, limits)
    if room < limits.arm_minimum_ppm:
        return None
    if reading.place.rung is Rung.UNPROVEN or reading.throttled is None:
        return Ppm(limits.arm_minimum_ppm)
    before = replace(reading.place, ppm=reading.throttled.held)
    return Ppm(min(stepped_down(before, rule=rule, limits=limits), room))


def _evidence(found: float | None) -> Reason:
    return at_least("evidence beside the champion", found, 0.0, note="log e-value")


def _waited(throttled: Throttled, rules: Rules, now: datetime) -> Reason:
    days = (now - throttled.since) / timedelta(days=1)
    note = f"since {throttled.since.date()}"
    return at_least("days throttled", days, rules.checklist.reentry_days, note=note)
