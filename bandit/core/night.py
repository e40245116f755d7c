"""One night of an experiment as a function: what was read and the rules give the next allocation.

The service calls it with what it read, a replay with what the night stored, a simulation with
what it made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from hashlib import blake2b

from bandit.core import checklist, succession
from bandit.core.allocators import ramp, registry, sharing
from bandit.core.allocators.fitting import Proposal
from bandit.core.checklist import ArmRow
from bandit.core.claims import unreported
from bandit.core.ladder import CHAMPION_DECAY, Standing, climb, decays, harm
from bandit.core.lifecycle import after
from bandit.core.limits import Limits
from bandit.core.model import (
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
    Promoter,
    Rung,
    Strategy,
    Verdict,
)
from bandit.core.reading import ArmReading, Rules
from bandit.core.reentry import Return, returning
from bandit.core.succession import Candidate
from bandit.core.verdicts import Reason


def night_seed(salt: bytes, day: date) -> int:
    """Return the seed of an experiment's night: always the same, and known to nobody before.

    >>> night_seed(b"s" * 32, date(2026, 3, 1)) == night_seed(b"s" * 32, date(2026, 3, 1))
    True
    """
    drawn = blake2b(day.isoformat().encode(), key=salt, person=b"night", digest_size=8).digest()
    # A bigint of the ledger has 63 bits for it.
    return int.from_bytes(drawn, "big") >> 1


def seed_of(strategy: Strategy, salt: bytes, day: date) -> int | None:
    """Return the seed of a strategy's night; None for the ramp, in which there is no chance."""
    return None if strategy is Strategy.RAMP else night_seed(salt, day)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An arm on the rung that its evidence gives it, with the reasons.

    `is_worse` says that it was shown to earn less than its champion, from the start or by now,
    `is_held` that too many of its claimed decisions come to nothing for it to rise.
    """

    reading: ArmReading
    is_worse: bool
    is_held: bool
    reasons: tuple[Reason, ...]


def judged(reading: ArmReading, *, rules: Rules) -> Judged:
    """Place an arm on its rung; the champion, which is compared with nobody, has none."""
    if reading.standing is None:
        place = _on(reading, Rung.UNPROVEN)
        return Judged(reading=place, is_worse=False, is_held=False, reasons=())
    worse = {r.check for r in _against(reading.standing, rules) if r.verdict is Verdict.FAIL}
    rung, _ = climb(reading.standing, rule=rules.ladder)
    claims = [] if reading.claims is None else [unreported(reading.claims, rule=rules.ladder)]
    return Judged(
        reading=_on(reading, rung),
        # That the champion does worse than an earlier one is not the earlier one's fault.
        is_worse=bool(worse - {CHAMPION_DECAY}),
        is_held=any(reason.verdict is Verdict.FAIL for reason in claims),
        reasons=(*claims, *reasons_of(reading.standing, rules=rules)),
    )


def _on(reading: ArmReading, rung: Rung) -> ArmReading:
    return replace(reading, place=replace(reading.place, rung=rung))


def reasons_of(standing: Standing, *, rules: Rules) -> tuple[Reason, ...]:
    """Return what speaks against an arm, and what its rung and the next ones ask for."""
    return (*_against(standing, rules), *climb(standing, rule=rules.ladder)[1])


def _against(standing: Standing, rules: Rules) -> tuple[Reason, ...]:
    return (harm(standing, rule=rules.ladder), *decays(standing, rule=rules.ladder))


def propose(
    arms: Sequence[Judged],
    *,
    rules: Rules,
    limits: Limits,
    profile: Profile,
    strategy: Strategy = Strategy.RAMP,
    seed: int | None = None,
) -> Proposal:
    """Return the allocation that a night proposes, with every asked challenger's reasons.

    `seed` is all chance there is in it; the ramp has none. Outside `seed_exact` the ramp's
    conditions are necessary and, with every strategy, the ladder says how far an arm may rise; one
    that was shown to earn less than its champion steps down, and one whose claimed decisions too
    often come to nothing may not rise.
    """
    readings = [arm.reading for arm in arms]
    worse = frozenset(arm.reading.place.policy for arm in arms if arm.is_worse)
    held = frozenset(arm.reading.place.policy for arm in arms if arm.is_held)
    if strategy is Strategy.RAMP:
        made = ramp.propose(
            readings, rule=rules.ramp, limits=limits, profile=profile, worse=worse, held=held
        )
    else:
        assert seed is not None
        made = sharing.propose(
            readings,
            strategy=registry.strategy(strategy.value, rules.allocator),
            rule=rules.ramp,
            limits=limits,
            profile=profile,
            worse=worse,
            held=held,
            seed=seed,
        )
    ladder = {arm.reading.place.policy: arm.reasons for arm in arms}
    reasons = {policy: (*found, *ladder[policy]) for policy, found in made.reasons.items()}
    return replace(made, reasons=reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightDecision:
    """What a night comes to, before anything is done about it.

    `flagged` are the arms that the checklist speaks against, with the rows that do, `back` those
    that come back; `arms` is each on its rung after that, `candidates` who may become the champion
    where a night promotes, and `proposal` what follows for all of them. `guarded` is what that
    profile would have proposed, where the rule is kept to the letter.
    """

    profile: Profile
    killed: bool
    flagged: tuple[tuple[ArmReading, ArmRow], ...]
    back: tuple[Return, ...]
    arms: tuple[Judged, ...]
    candidates: tuple[Candidate, ...]
    proposal: Proposal
    guarded: Proposal | None

    @property
    def promotion(self) -> Candidate | None:
        """Who becomes the champion: nobody of a killed account, and in `guarded` only."""
        acts = self.profile is Profile.GUARDED and not self.killed
        return succession.strongest(self.candidates) if acts else None

    @property
    def actions(self) -> tuple[tuple[ArmReading, ArmRow], ...]:
        """What the checklist does: nothing where a night only observes."""
        return () if self.profile is Profile.OBSERVE else self.flagged

    @property
    def before(self) -> dict[PolicyName, Ppm]:
        """What each arm holds once some were stopped or came back, and one was promoted."""
        if self.promotion is not None:
            return dict(self.promotion.ppm)
        return {arm.reading.place.policy: arm.reading.place.ppm for arm in self.arms}

    @property
    def rungs(self) -> dict[PolicyName, Rung]:
        """The rung that its evidence gives each arm."""
        return {arm.reading.place.policy: arm.reading.place.rung for arm in self.arms}

    @property
    def kind(self) -> DecisionKind:
        """Say whether traffic moves: neither of a killed account nor where it is observed."""
        may_move = self.profile is not Profile.OBSERVE and not self.killed
        moves = may_move and dict(self.proposal.ppm) != self.before
        return DecisionKind.RESCALE if moves else DecisionKind.HOLD

    def results(self) -> dict[str, object]:
        """Return what the night's row says of its results, as they are stored."""
        found: dict[str, object] = {
            "before": self.before,
            "proposed": dict(self.proposal.ppm),
            "rungs": {policy: rung.value for policy, rung in self.rungs.items()},
        }
        if self.killed:
            found["killed"] = True
        if self.promotion is not None:
            found["promoted"] = self.promotion.policy
        would = self._would()
        if would or self.profile is Profile.OBSERVE:
            found["would"] = would
        if self.guarded is not None:
            found["guarded_would_propose"] = dict(self.guarded.ppm)
        return found

    def _would(self) -> dict[str, str]:
        """Return what is left undone of what the rules ask for, by arm."""
        left = self.flagged if self.profile is Profile.OBSERVE else ()
        would: dict[str, str] = {r.place.policy: row.action.value for r, row in left}
        best = succession.strongest(self.candidates)
        if best is not None and self.promotion is None:
            would[best.policy] = "promote"
        return would

    def reasons(self) -> dict[str, object]:
        """Return the reasons of every arm that was asked, as they are stored."""
        asked = dict(self.proposal.reasons)
        for candidate in self.candidates:
            known = asked.get(candidate.policy, ())
            said = {reason.check for reason in known}
            more = (reason for reason in candidate.reasons if reason.check not in said)
            asked[candidate.policy] = (*known, *more)
        return {policy: [reason.to_json() for reason in found] for policy, found in asked.items()}


def decide(
    readings: Sequence[ArmReading],
    *,
    rules: Rules,
    limits: Limits,
    profile: Profile,
    strategy: Strategy,
    seed: int | None,
    now: datetime,
    killed: bool = False,
) -> NightDecision:
    """Decide a night, on which nothing is given to an arm of an account that is `killed`.

    The checklist stops arms, some that it throttled come back, the ladder places all of them, the
    strategy proposes. Where an eligible arm is promoted, that is all that moves traffic: what was
    read of the others was read beside the champion before.
    """
    flagged = checklist.actions(readings, rules.checklist)
    left: Sequence[ArmReading] = readings
    if profile is not Profile.OBSERVE:
        left = _moved(left, {r.place.policy: (_stopped(r, row), Ppm(0)) for r, row in flagged})
    back: tuple[Return, ...] = ()
    if not killed:
        back = returning(left, rules=rules, limits=limits, profile=profile, now=now)
    left = _moved(left, {found.policy: (ArmStatus.ACTIVE, found.part) for found in back})
    arms = tuple(judged(reading, rules=rules) for reading in left)
    proposed = partial(propose, arms, rules=rules, limits=limits, strategy=strategy, seed=seed)
    decided = NightDecision(
        profile=profile,
        killed=killed,
        flagged=flagged,
        back=back,
        arms=arms,
        candidates=_candidates(arms, flagged, back, rules=rules, limits=limits),
        proposal=proposed(profile=profile),
        guarded=proposed(profile=Profile.GUARDED) if profile is Profile.SEED_EXACT else None,
    )
    if decided.promotion is None:
        return decided
    return replace(decided, proposal=replace(decided.proposal, ppm=decided.promotion.ppm))


def may_succeed(reading: ArmReading, *, rules: Rules) -> bool:
    """Say whether a night may promote an arm, by its rung: only then do gates judge it."""
    if rules.promote is not Promoter.NIGHT:
        return False
    return judged(reading, rules=rules).reading.place.rung is Rung.ELIGIBLE


def _candidates(
    arms: Sequence[Judged],
    flagged: Sequence[tuple[ArmReading, ArmRow]],
    back: Sequence[Return],
    *,
    rules: Rules,
    limits: Limits,
) -> tuple[Candidate, ...]:
    """Return who may be promoted tonight: nobody about whom the night decides otherwise."""
    if rules.promote is not Promoter.NIGHT:
        return ()
    barred = {arm.reading.place.policy for arm in arms if arm.is_worse or arm.is_held}
    moved = {r.place.policy for r, _ in flagged} | {found.policy for found in back}
    readings = [arm.reading for arm in arms]
    among = frozenset(reading.place.policy for reading in readings) - barred - moved
    return succession.candidates(readings, among=among, rules=rules, limits=limits)


def _stopped(reading: ArmReading, row: ArmRow) -> ArmStatus:
    return after(row.action, status=reading.place.status, role=reading.place.role)


def _moved(
    readings: Sequence[ArmReading], changes: Mapping[PolicyName, tuple[ArmStatus, Ppm]]
) -> list[ArmReading]:
    """Give arms another status and part; the champion takes and gives the difference."""
    held = {reading.place.policy: reading.place.ppm for reading in readings}
    freed = sum(held[policy] - part for policy, (_, part) in changes.items())
    moved = []
    for reading in readings:
        place = reading.place
        if place.policy in changes:
            status, part = changes[place.policy]
            place = replace(place, status=status, ppm=part)
        elif place.role is ArmRole.CHAMPION:
            place = replace(place, ppm=Ppm(place.ppm + freed))
        moved.append(replace(reading, place=place))
    return moved
