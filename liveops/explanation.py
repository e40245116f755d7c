"""What `liveops explain` says of an arm, in lines of at most eighty columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, assert_never

from bandit.core.claims import UNREPORTED
from bandit.core.gates import Gate
from bandit.core.ladder import CHAMPION_DECAY, DECAY, LadderRule
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    Profile,
    Rung,
    Verdict,
)
from bandit.core.outlook import DAYS_MIN, Forecast, Outlook, State
from bandit.core.promotion import rollback_advice
from bandit.core.verdicts import Reason
from bandit.service.explaining import Explanation
from bandit.service.exploring import BudgetReport
from bandit.storage.decisions import DecisionRecord
from bandit.storage.experiments import ExperimentRecord

COLUMNS: Final = 80
# What a check asks, and what its limit is; the ladder's own have a part of their own.
_ASKS: Final[dict[str, tuple[str, str]]] = {
    "trades": ("trades", "at least"),
    "champion trades": ("trades of the champion", "at least"),
    "pf_150 >= pf_prod": ("profit factor pf_150 beside the champion's pf_prod", "at least"),
    "dd_150 percent": ("drawdown dd_150 in percent", "at most"),
    "traffic_allocation": ("share of traffic, to grow", "below"),
    "wanted share": ("share that its strategy would like", "at least"),
    "pf_challenger_30": ("profit factor of the checklist", "at least"),
    "dd_challenger_pct": ("drawdown in percent of the checklist", "at most"),
    "evidence against": ("evidence that it earns less", "at most"),
    DECAY: ("level of decay in days", "at most"),
    CHAMPION_DECAY: ("level of decay in days of the champion beside it", "at most"),
    UNREPORTED: ("evidence that too many claimed decisions come to nothing", "at most"),
    "evidence beside the champion": ("evidence beside the champion", "at least"),
    "profit factor on paper": ("profit factor on paper", "at least"),
    "days throttled": ("days since it was throttled", "at least"),
}
_AT_MOST: Final = frozenset({Gate.DRAWDOWN, Gate.MARKED_DRAWDOWN, Gate.EXCURSION, Gate.HELD_LOSSES})
# What a promotion asks of an eligible arm; said only where it does not hold.
_PROMOTION: Final[dict[str, tuple[str, str]]] = {
    "gates": ("gates of a promotion", "at least"),
    "room to promote": ("room under the limits to promote it", "at least"),
    **{
        f"gate {gate}": (
            f"gate {gate} of a promotion",
            "at most" if gate in _AT_MOST else "at least",
        )
        for gate in Gate
    },
}
_VERDICTS: Final = {
    Verdict.PASS: "yes",
    Verdict.FAIL: "no",
    Verdict.INCONCLUSIVE: "not known",
}
_NEVER: Final = "may never be decided at this rate"


def explanation_lines(found: Explanation) -> list[str]:
    """Return the explanation: what the arm has, why, and when it may be decided."""
    place = found.arm.place
    head = f"{place.policy} in {found.record.experiment.name}: {_percent(place.ppm)} of traffic"
    said = [head, *_wrapped(_state(found), indent=2), "", "Why"]
    said += [line for text, indent in _why(found) for line in _wrapped(text, indent=indent)]
    if found.outlook is not None:
        said += ["", f"Until it is decided, as of the night of {found.as_of}"]
        for text in _until_decided(found.outlook, found.record):
            said += _wrapped(text, indent=2)
    return said


def _state(found: Explanation) -> str:
    place = found.arm.place
    made = found.succession
    # Where its part has not moved since, that is told below.
    if made is not None and made.id != found.move.decision.id:
        return f"It is the champion, by {_moment(made)}. {_by(made)}"
    if place.role is ArmRole.CHAMPION:
        return "It is the champion."
    beside = f"beside the champion {found.record.experiment.champion}"
    return f"A challenger {beside}: {place.status}, {place.mode}, {place.rung}."


def _why(found: Explanation) -> Iterator[tuple[str, int]]:
    """Yield sentences with how far they are set in."""
    place, moved = found.arm.place, found.move
    if found.record.is_killed:
        yield "Its account is killed: nothing trades, and no night moves traffic.", 2
    made, after = moved.decision, _percent(moved.after)
    step = f"it joined with {after}"
    if moved.before is not None:
        step = f"from {_percent(moved.before)} to {after}"
    yield f"{_moment(made)}: {step}. {_by(made)}", 2
    yield from _asked(found, made)
    if found.stop is not None:
        if found.stop.id != made.id:
            yield f"{_moment(found.stop)}. {_by(found.stop)}", 2
            yield from _asked(found, found.stop)
        if found.to_return:
            yield f"A night brings it back once it has recovered; that of {found.as_of} asked:", 2
            yield from _checks(reason.to_json() for reason in found.to_return)
        if place.status is not ArmStatus.RETIRED:
            yield "`liveops resume` brings it back, at the least an arm may have.", 2
    elif found.night is not None and found.night.id > made.id:
        yield f"{_moment(found.night)} left it there: {_held(found, found.night)}", 2
        yield from _asked(found, found.night)
    yield from ((bound, 2) for bound in _bounds(found))
    if found.budget.budget is not None and place.role is ArmRole.CHALLENGER:
        yield f"Its experiment has an exploration budget: {_left(found.budget)}", 2
    for hold_out, reason in found.hold_outs.items():
        yield f"Beside its hold-out {hold_out}, in the night of {found.as_of}:", 2
        yield from _checks([reason.to_json() | {"check": DECAY}])
        if reason.verdict is Verdict.FAIL:
            yield rollback_advice(found.record.experiment, hold_out), 4


def _moment(made: DecisionRecord) -> str:
    if made.trading_day is not None:
        return f"The night of {made.trading_day} ({made.kind})"
    return f"{made.kind} on {made.decided_at:%Y-%m-%d %H:%M}"


def _by(made: DecisionRecord) -> str:
    return f"Decided by {made.actor}: {made.reason}."


def _held(found: Explanation, night: DecisionRecord) -> str:
    """Say why a night that was decided later did not move the arm."""
    policy, inputs = found.arm.place.policy, night.inputs
    before, proposed = (inputs.get(key, {}).get(policy) for key in ("before", "proposed"))
    if "promoted" in inputs:
        return f"{inputs['promoted']} became the champion, and nothing else moved."
    if night.kind is DecisionKind.HOLD and before != proposed and proposed is not None:
        why = "the account is killed" if "killed" in inputs else "its profile only observes"
        return f"it would have made it {_percent(proposed)}, but {why}."
    return "nothing to change."


def _asked(found: Explanation, made: DecisionRecord) -> Iterator[tuple[str, int]]:
    """Yield the checks behind a decision that are not the ladder's."""
    yield from _checks(found.reasons_of(made))


def _checks(reasons: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    for reason in reasons:
        verdict = Verdict(reason["verdict"])
        known = _ASKS if verdict is Verdict.PASS else _ASKS | _PROMOTION
        if reason["check"] not in known:
            continue
        asks, side = known[reason["check"]]
        value, limit = (_number(reason[key]) for key in ("value", "limit"))
        tells = verdict is Verdict.INCONCLUSIVE or reason["check"] in ("wanted share", UNREPORTED)
        note = f" ({reason['note']})" if tells and reason["note"] else ""
        yield f"{asks}: {value}, {side} {limit}: {_VERDICTS[verdict]}{note}", 4


def _bounds(found: Explanation) -> Iterator[str]:
    place, bounds = found.arm.place, found.bounds
    if place.role is ArmRole.CHAMPION:
        floor = _percent(found.champion_floor)
        yield f"A champion holds what the challengers leave, {floor} at least."
    elif place.mode is not ArmMode.LIVE:
        yield f"In mode {place.mode} an arm gets no traffic: only results on paper count."
    elif bounds is not None:
        at_most = f"{place.rung} arms hold {_percent(bounds.most)} at most"
        if found.record.experiment.profile is Profile.SEED_EXACT:
            at_most = f"it may hold {_percent(bounds.most)} at most"
        least, left = _percent(bounds.least), _percent(bounds.left)
        yield f"Limits: {at_most}, {least} at least; the champion can give up {left} more."
        if place.ppm <= bounds.least:
            yield "It has the least that an arm may have."
        elif place.ppm >= bounds.most:
            yield "It has the most that it may have on its rung."


def _left(found: BudgetReport) -> str:
    if not found.room:
        return "no room is left, so the champion decides (`liveops budget show`)."
    return f"room for {found.room} more decisions before any outcome comes in."


def _until_decided(found: Outlook, record: ExperimentRecord) -> Iterator[str]:
    proof, harm, factor = found.proof, found.harm, found.factor
    yield found.in_short(night_promotes=record.night_promotes)
    own = f"{proof.decisions} decisions of its own on {proof.days} days"
    yield f"Evidence comes from {own}; {proof.a_day:.1f} a day come now."
    yield f"Proven better on those: {_said(proof)}."
    if found.paper is not None:
        pairs = f"{found.paper.decisions} pairs on {found.paper.days} days"
        yield f"Proven better on paper ({pairs}, {found.paper.a_day:.1f} a day now): " + (
            f"{_said(found.paper)}."
        )
        if found.paper_agrees is not Verdict.PASS:
            known = "it does not" if found.paper_agrees is Verdict.FAIL else "not known yet"
            yield f"That counts only while paper agrees with live: {known}."
    yield f"Shown to be worse: {_said(harm)}."
    if found.rung is Rung.ELIGIBLE:
        return
    yield "To be eligible for promotion it must be proven better on decisions of its own, and:"
    yield f"- profit factor: {_said(factor)}"
    yield from (f"- {text}" for text in _lasting(found.reasons, record.rules.ladder))


def _lasting(reasons: Sequence[Reason], rule: LadderRule) -> Iterator[str]:
    by_check = {reason.check: reason for reason in reasons}
    for check in ("trades to be eligible", "days with decisions"):
        reason = by_check[check]
        assert reason.value is not None
        assert reason.limit is not None
        missing = max(0.0, reason.limit - reason.value)
        more = f"{missing:.0f} more" if missing else "enough"
        name = check.removesuffix(" to be eligible")
        yield f"{name}: {reason.value:.0f} of {reason.limit:.0f}, {more}"
    worst = by_check[f"worst of {rule.blocks} blocks"]
    value = "not known yet" if worst.value is None else f"{worst.value:.3f}"
    yield f"mean score in the worst of {rule.blocks} parts of its life: {value}, at least 0"


def _said(found: Forecast) -> str:
    """Say how far evidence is, and when it may be enough."""
    return f"evidence {found.evidence:.2f} of {found.needed:.2f}, {_when(found)}"


def _when(found: Forecast) -> str:
    match found.state:
        case State.REACHED:
            return "reached"
        case State.IDLE:
            return f"but no decisions come: {_NEVER}"
        case State.EARLY:
            return f"too early to say: it takes {DAYS_MIN} days, and some decisions"
        case State.NEVER:
            best = "" if found.soonest is None else f"; at best in {_days(found, found.soonest)}"
            return f"{_NEVER}{best}"
        case State.OPEN:
            worst = "perhaps never" if found.latest is None else f"at worst in {found.latest}"
            expected = _days(found, found.expected)
            return f"in {expected}; at best in {found.soonest}, {worst}"
        case _:
            assert_never(found.state)


def _days(found: Forecast, days: int | None) -> str:
    assert days is not None
    return f"{days} days ({found.decisions_in(days)} decisions)"


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.2f}%"


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _wrapped(text: str, *, indent: int) -> list[str]:
    first, then = " " * indent, " " * (indent + 2)
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=then, break_on_hyphens=False
    )
