"""A stored night derived again from what its row says, and where the two differ (SPEC E7, O2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from bandit.core import night
from bandit.core.errors import InvalidInput
from bandit.core.lifecycle import decision_of
from bandit.core.limits import Limits
from bandit.core.model import DecisionKind, PolicyName, Ppm, Profile, Strategy
from bandit.core.night import NightDecision
from bandit.core.reading import ArmReading, Rules

_LATER: Final = frozenset({"rungs"})
"""Results that nights of earlier releases did not write down."""

_LARGE = 10**16


def inputs_text(inputs: Mapping[str, Any]) -> str:
    """Return the text whose SHA-256 is the digest of a decision's inputs.

    The same before the database has stored them as after: it gives whole numbers back where
    a float was too large for decimals.

    >>> inputs_text({"b": 1e+16, "a": 0.5}) == inputs_text({"a": 0.5, "b": 10**16})
    True
    """
    return json.dumps(_as_written(inputs), sort_keys=True, allow_nan=False)


def _as_written(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_written(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_written(part) for part in value]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_whole and abs(value) >= _LARGE else value


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAction:
    """An arm that a night stopped, brought back or promoted, as the decision that did it tells."""

    kind: DecisionKind
    policy: str
    reasons: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNight:
    """A night as its decisions tell it.

    `inputs` is what it read, and its results beside that; `actions` are its decisions on single
    arms, `allocation` the version that it made, if any, as parts per million.
    """

    day: date
    decided_at: datetime
    kind: DecisionKind
    profile: str
    strategy: str
    seed: int | None
    code_version: str
    inputs: Mapping[str, Any]
    inputs_digest: str
    reasons: Mapping[str, Any]
    actions: Sequence[StoredAction]
    allocation: Mapping[PolicyName, Ppm] | None


class Comparison(StrEnum):
    """What came of deriving a night again."""

    SAME = "same"
    DIFFERENT = "different"
    CANNOT = "cannot be replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something a night stored, and what follows from what it read; None where there is nothing."""

    what: str
    stored: Any
    derived: Any

    def to_json(self) -> dict[str, Any]:
        """Return the difference as `liveops replay --json` prints it."""
        return {"what": self.what, "stored": self.stored, "derived": self.derived}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rederived:
    """A night derived again: where it differs, or `why_not` it cannot be."""

    day: date
    code_version: str
    differences: tuple[Difference, ...] = ()
    why_not: str | None = None

    @property
    def comparison(self) -> Comparison:
        """Whether it came out as it was stored."""
        if self.why_not is not None:
            return Comparison.CANNOT
        return Comparison.DIFFERENT if self.differences else Comparison.SAME

    def to_json(self) -> dict[str, Any]:
        """Return the night as `liveops replay --json` prints it."""
        return {
            "night": self.day.isoformat(),
            "code_version": self.code_version,
            "result": self.comparison.value.replace(" ", "_"),
            "why_not": self.why_not,
            "differences": [difference.to_json() for difference in self.differences],
        }


def rederived(stored: StoredNight, *, limits: Limits, rules: Rules, salt: bytes) -> Rederived:
    """Derive a night again and say where it differs from what is stored.

    `limits` and `rules` are the experiment's, for nights of releases that did not store theirs;
    `salt` is what seeds follow from. A night that was written by hand, or by a release that read
    other numbers, cannot be derived.
    """
    found = Rederived(day=stored.day, code_version=stored.code_version)
    if "readings" not in stored.inputs:
        return replace(found, why_not="it was set by hand: nothing was read")
    try:
        decided = _decided(stored, limits=limits, rules=rules)
    except InvalidInput as error:
        return replace(found, why_not=str(error))
    return replace(found, differences=tuple(_differences(stored, decided, salt=salt)))


def _decided(stored: StoredNight, *, limits: Limits, rules: Rules) -> NightDecision:
    inputs = stored.inputs
    readings = [ArmReading.from_json(row) for row in inputs["readings"]]
    try:
        strategy, profile = Strategy(stored.strategy), Profile(stored.profile)
        limits = Limits(**inputs["limits"]) if "limits" in inputs else limits
        rules = Rules.from_json(inputs["rules"]) if "rules" in inputs else rules
    except (KeyError, TypeError, ValueError) as error:
        rule = "must be what this release decides by"
        raise InvalidInput(field="rules", rule=rule, found=error) from error
    if strategy is not Strategy.RAMP and stored.seed is None:
        raise InvalidInput(field="seed", rule=f"must be stored for {strategy}", found="none")
    return night.decide(
        readings,
        rules=rules,
        limits=limits,
        profile=profile,
        strategy=strategy,
        seed=stored.seed,
        now=stored.decided_at,
        killed="killed" in inputs,
    )


def _differences(
    stored: StoredNight, decided: NightDecision, *, salt: bytes
) -> Iterator[Difference]:
    inputs, digest = stored.inputs, hashlib.sha256(inputs_text(stored.inputs).encode()).hexdigest()
    yield from _unequal("inputs digest", stored.inputs_digest, digest)
    seed = night.seed_of(Strategy(stored.strategy), salt, stored.day)
    yield from _unequal("seed", stored.seed, seed)
    results = decided.results()
    for name, derived in results.items():
        if name in inputs or name not in _LATER:
            yield from _apart(name, inputs.get(name), derived)
    yield from _apart("reasons", _by_check(stored.reasons), _by_check(decided.reasons()))
    yield from _unequal("kind", stored.kind.value, decided.kind.value)
    moved = dict(decided.proposal.ppm) if decided.kind is DecisionKind.RESCALE else None
    yield from _apart("allocation", stored.allocation, moved)
    yield from _apart("actions", _actions(stored), _expected_actions(decided))


def _actions(stored: StoredNight) -> dict[str, Any]:
    return {
        made.policy: {"decision": made.kind.value, **_checks(made.reasons.get(made.policy, ()))}
        for made in stored.actions
    }


def _expected_actions(decided: NightDecision) -> dict[str, Any]:
    found: dict[str, Any] = {
        reading.place.policy: {
            "decision": decision_of(row.action).value,
            **_checks([row.reason.to_json()]),
        }
        for reading, row in decided.actions
    }
    for back in decided.back:
        reasons = _checks([reason.to_json() for reason in back.reasons])
        found[back.policy] = {"decision": DecisionKind.RESUME.value, **reasons}
    made = decided.promotion
    if made is not None:
        reasons = _checks([reason.to_json() for reason in made.reasons])
        found[made.policy] = {"decision": DecisionKind.PROMOTE.value, **reasons}
    return found


def _by_check(reasons: Mapping[str, Any]) -> dict[str, Any]:
    return {policy: _checks(found) for policy, found in reasons.items()}


def _checks(reasons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {reason["check"]: reason for reason in reasons}


def _apart(what: str, stored: Any, derived: Any) -> Iterator[Difference]:
    """Yield where two values differ, going into what both have parts of, but not into a reason."""
    both = isinstance(stored, Mapping) and isinstance(derived, Mapping)
    if not both or "check" in stored or "check" in derived:
        yield from _unequal(what, stored, derived)
        return
    for name in dict.fromkeys((*stored, *derived)):
        yield from _apart(f"{what}: {name}", stored.get(name), derived.get(name))


def _unequal(what: str, stored: Any, derived: Any) -> Iterator[Difference]:
    if stored != derived:
        yield Difference(what=what, stored=stored, derived=derived)
