"""One night of an experiment as a function: what was read and the rules give the next allocation.

The service calls it with what it read, a replay with what the night stored, a simulation with
what it made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from hashlib import blake2b

from bandit.core.allocators import ramp, registry, sharing
from bandit.core.allocators.fitting import Proposal
from bandit.core.ladder import Standing, climb, harm
from bandit.core.limits import Limits
from bandit.core.model import Profile, Rung, Strategy, Verdict
from bandit.core.reading import ArmReading, Rules
from bandit.core.verdicts import Reason


def night_seed(salt: bytes, day: date) -> int:
    """Return the seed of an experiment's night: always the same, and known to nobody before.

    >>> night_seed(b"s" * 32, date(2026, 3, 1)) == night_seed(b"s" * 32, date(2026, 3, 1))
    True
    """
    drawn = blake2b(day.isoformat().encode(), key=salt, person=b"night", digest_size=8).digest()
    # A bigint of the ledger has 63 bits for it.
    return int.from_bytes(drawn, "big") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An arm on the rung that its evidence gives it, with the reasons.

    `is_worse` says that it was shown to earn less than its champion.
    """

    reading: ArmReading
    is_worse: bool
    reasons: tuple[Reason, ...]


def judged(reading: ArmReading, *, rules: Rules) -> Judged:
    """Place an arm on its rung; the champion, which is compared with nobody, has none."""
    if reading.standing is None:
        return Judged(reading=_on(reading, Rung.UNPROVEN), is_worse=False, reasons=())
    worse = harm(reading.standing, rule=rules.ladder)
    rung, asked = climb(reading.standing, rule=rules.ladder)
    return Judged(
        reading=_on(reading, rung),
        is_worse=worse.verdict is Verdict.FAIL,
        reasons=(worse, *asked),
    )


def _on(reading: ArmReading, rung: Rung) -> ArmReading:
    return replace(reading, place=replace(reading.place, rung=rung))


def reasons_of(standing: Standing, *, rules: Rules) -> tuple[Reason, ...]:
    """Return what speaks against an arm, and what its rung and the next ones ask for."""
    return (harm(standing, rule=rules.ladder), *climb(standing, rule=rules.ladder)[1])


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
    that was shown to earn less than its champion steps down.
    """
    readings = [arm.reading for arm in arms]
    worse = frozenset(arm.reading.place.policy for arm in arms if arm.is_worse)
    if strategy is Strategy.RAMP:
        made = ramp.propose(readings, rule=rules.ramp, limits=limits, profile=profile, worse=worse)
    else:
        assert seed is not None
        made = sharing.propose(
            readings,
            strategy=registry.strategy(strategy.value, rules.allocator),
            rule=rules.ramp,
            limits=limits,
            profile=profile,
            worse=worse,
            seed=seed,
        )
    ladder = {arm.reading.place.policy: arm.reasons for arm in arms}
    reasons = {policy: (*found, *ladder[policy]) for policy, found in made.reasons.items()}
    return replace(made, reasons=reasons)
