"""A stored night is derived again; whatever was changed in its rows is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from night_readings import NEW, OLD, OTHER, PROVEN, UNKNOWN, arm

from bandit.core import night
from bandit.core.allocators.posterior import Moments
from bandit.core.lifecycle import ArmVerb, decision_of
from bandit.core.limits import Limits
from bandit.core.model import ArmStatus, DecisionKind, PolicyName, Ppm, Profile, Strategy
from bandit.core.reading import ArmReading, ChecklistRule, Rules, Throttled
from bandit.core.rederivation import (
    Comparison,
    Rederived,
    StoredAction,
    StoredNight,
    inputs_text,
    rederived,
)

DAY, SALT = date(2026, 3, 3), bytes(range(32))
NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
BACK = PolicyName("back")
Json = dict[str, Any]


def through_json(value: object) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def digest(inputs: Json) -> str:
    return hashlib.sha256(inputs_text(inputs).encode()).hexdigest()


def readings() -> list[ArmReading]:
    """One arm that rises, one that the checklist stops, and the champion."""
    found = [
        arm(NEW, 100_000, PROVEN),
        arm(OTHER, 200_000, UNKNOWN, pf=1.5),
        arm(OLD, 700_000, None),
    ]
    weighed = Moments(n=40.0, total=8.0, squares=80.0)
    return [replace(reading, moments=weighed) for reading in found]


def back() -> ArmReading:
    """One that the checklist throttled three days ago."""
    found = arm(BACK, 0, UNKNOWN)
    return replace(
        found,
        place=replace(found.place, status=ArmStatus.THROTTLED),
        throttled=Throttled(since=NOW - timedelta(days=3), held=Ppm(50_000), paper=None),
    )


def stored(
    *,
    profile: Profile = Profile.GUARDED,
    strategy: Strategy = Strategy.RAMP,
    killed: bool = False,
    rules: Rules | None = None,
    others: Sequence[ArmReading] = (),
    **changes: object,
) -> StoredNight:
    """A night as the ledger gives it back, but for `changes`."""
    rules, limits = rules or Rules(), Limits()
    seed = night.seed_of(strategy, SALT, DAY)
    read = [*readings(), *others]
    made = night.decide(
        read,
        rules=rules,
        limits=limits,
        profile=profile,
        strategy=strategy,
        seed=seed,
        now=NOW,
        killed=killed,
    )
    inputs = through_json(
        {
            "readings": [reading.to_json() for reading in read],
            "limits": asdict(limits),
            "rules": asdict(rules),
            **made.results(),
        }
    )
    found = StoredNight(
        day=DAY,
        decided_at=NOW,
        kind=made.kind,
        profile=profile.value,
        strategy=strategy.value,
        seed=seed,
        code_version="0.1.0",
        inputs=inputs,
        inputs_digest=digest(inputs),
        reasons=through_json(made.reasons()),
        actions=[
            *(
                StoredAction(
                    kind=decision_of(row.action),
                    policy=reading.place.policy,
                    reasons=through_json({reading.place.policy: [row.reason.to_json()]}),
                )
                for reading, row in made.actions
            ),
            *(
                StoredAction(
                    kind=DecisionKind.RESUME,
                    policy=back.policy,
                    reasons=through_json({back.policy: [r.to_json() for r in back.reasons]}),
                )
                for back in made.back
            ),
        ],
        allocation=dict(made.proposal.ppm) if made.kind is DecisionKind.RESCALE else None,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def again(found: StoredNight, rules: Rules | None = None) -> Rederived:
    return rederived(found, limits=Limits(), rules=rules or Rules(), salt=SALT)


def told(found: StoredNight) -> list[str]:
    """What differs; the digest too wherever the inputs were changed."""
    return [difference.what for difference in again(found).differences]


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("strategy", [Strategy.RAMP, Strategy.THOMPSON, Strategy.UCB])
@pytest.mark.parametrize("killed", [False, True])
def test_an_untouched_night_is_the_same(profile: Profile, strategy: Strategy, killed: bool) -> None:
    found = again(stored(profile=profile, strategy=strategy, killed=killed))
    assert (found.comparison, found.differences) == (Comparison.SAME, ())


def test_a_night_of_a_release_before_decay_and_claims_is_the_same() -> None:
    """Neither its readings nor its rules say anything of them."""
    found = stored()
    inputs = through_json(found.inputs)
    for reading in inputs["readings"]:
        del reading["claims"]
        if reading["standing"] is not None:
            del reading["standing"]["decay"], reading["standing"]["champion_decay"]
    del inputs["rules"]["ladder"]["decay_days"], inputs["rules"]["ladder"]["unreported_max"]
    assert again(replace(found, inputs=inputs, inputs_digest=digest(inputs))).differences == ()


def with_inputs(change: Callable[[Json], object]) -> StoredNight:
    """A night whose inputs were changed by somebody who also made their digest anew."""
    found = stored()
    inputs = through_json(found.inputs)
    change(inputs)
    return replace(found, inputs=inputs, inputs_digest=digest(inputs))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda i: i["proposed"].update(new=140_000), ["proposed: new"]),
        (lambda i: i["proposed"].pop("other"), ["proposed: other"]),
        (lambda i: i["rungs"].update(new="eligible"), ["rungs: new"]),
        (lambda i: i["before"].update(old=800_000), ["before: old"]),
        (lambda i: i.pop("before"), ["before"]),
        (lambda i: i["limits"].update(step_up=1.2), ["proposed: new", "proposed: old"]),
        (lambda i: i.update(killed=False), ["killed"]),
    ],
)
def test_a_changed_result_is_named_with_its_arm(
    change: Callable[[Json], object], expected: list[str]
) -> None:
    assert told(with_inputs(change))[: len(expected)] == expected


def test_a_changed_number_changes_what_follows_from_it() -> None:
    def lose(inputs: Json) -> None:
        inputs["readings"][0]["pf_150"]["gross_profit"] = 0.5

    found = told(with_inputs(lose))
    assert "proposed: new" in found
    assert "reasons: new: pf_150 >= pf_prod" in found
    assert "allocation: new" in found


def test_a_change_nothing_follows_from_is_in_the_digest() -> None:
    found = stored()
    inputs = through_json(found.inputs)
    inputs["readings"][2]["pf_30"]["gross_profit"] += 1e-12
    assert told(replace(found, inputs=inputs)) == ["inputs digest"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 7}, ["seed"]),
        ({"reasons": {}}, ["reasons: new"]),
        ({"allocation": None}, ["allocation"]),
        ({"allocation": {NEW: 1, OTHER: 0, OLD: 999_999}}, ["allocation: new", "allocation: old"]),
        ({"actions": []}, ["actions: other"]),
    ],
)
def test_a_changed_row_is_named(changes: dict[str, object], expected: list[str]) -> None:
    assert told(stored(**changes)) == expected


def test_another_stop_than_the_checklist_asks_for_is_named() -> None:
    [stop] = stored().actions
    halted = replace(stop, kind=decision_of(ArmVerb.HALT))
    [difference] = again(stored(actions=[halted])).differences
    assert (difference.what, difference.stored, difference.derived) == (
        "actions: other: decision",
        "HALT",
        "THROTTLE",
    )


def test_who_came_back_is_derived_and_by_when() -> None:
    found = stored(others=[back()])
    assert [made.kind.value for made in found.actions] == ["THROTTLE", "RESUME"]
    assert found.inputs["before"][BACK] == 20_000
    assert again(found).comparison is Comparison.SAME
    earlier = replace(found, decided_at=NOW - timedelta(seconds=1))
    assert "actions: back" in [difference.what for difference in again(earlier).differences]


def test_a_seed_that_does_not_follow_from_the_day_is_named_though_all_follows_from_it() -> None:
    found = stored(strategy=Strategy.FIXED, seed=1)
    assert told(found) == ["seed"]


def test_a_night_goes_by_its_own_rules_and_older_ones_by_the_experiments() -> None:
    strict = Rules(checklist=ChecklistRule(pf_throttle=3.0))
    found = stored(rules=strict)
    assert again(found).comparison is Comparison.SAME
    inputs = {k: v for k, v in found.inputs.items() if k not in ("limits", "rules", "rungs")}
    older = replace(found, inputs=inputs, inputs_digest=digest(inputs))
    assert again(older, strict).comparison is Comparison.SAME
    assert again(older).comparison is Comparison.DIFFERENT


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda i: i.pop("readings"), "it was set by hand: nothing was read"),
        (
            lambda i: i["readings"][1].pop("moments"),
            "reading: must have moments, found nothing",
        ),
        (
            lambda i: i["rules"]["ramp"].update(patience=3),
            "rules: must be what this release decides by, found "
            "RampRule.__init__() got an unexpected keyword argument 'patience'",
        ),
    ],
)
def test_what_another_release_stored_is_named_with_the_reason(
    change: Callable[[Json], object], why: str
) -> None:
    found = again(with_inputs(change))
    assert (found.comparison, found.why_not, found.differences) == (Comparison.CANNOT, why, ())


@pytest.mark.parametrize(
    "changes", [{"strategy": "oracle"}, {"profile": "reckless"}, {"strategy": "thompson"}]
)
def test_a_strategy_nobody_knows_or_without_its_seed_cannot_be_replayed(
    changes: dict[str, object],
) -> None:
    found = again(replace(stored(), **changes))  # type: ignore[arg-type]
    assert (found.comparison, found.differences) == (Comparison.CANNOT, ())


def test_json_of_a_night_is_lawful() -> None:
    found = again(stored(seed=7)).to_json()
    assert through_json(found) == {
        "night": "2026-03-03",
        "code_version": "0.1.0",
        "result": "different",
        "why_not": None,
        "differences": [{"what": "seed", "stored": 7, "derived": None}],
    }
    assert again(with_inputs(lambda i: i.pop("readings"))).to_json()["result"] == (
        "cannot_be_replayed"
    )


def test_no_text_is_made_of_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        inputs_text({"a": float("nan")})
