"""Experiments in any state, planted in a ledger, and what the database says to a version there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import psycopg
from ledger import NOON

from bandit.core.limits import (
    REDUCING,
    ArmPlace,
    Limits,
    arm_cap_of,
    champion_floor_of,
    step_up_limit,
)
from bandit.core.model import (
    WHOLE_PPM,
    ArmMode,
    ArmRole,
    ArmStatus,
    DecisionKind,
    PolicyName,
    Ppm,
    Profile,
    Rung,
)

CHALLENGERS = [(f"arm-{i}", f"{i:08x}") for i in range(6)]
EARLIER = PolicyName(CHALLENGERS[0][0])
"""Of the planted challengers, the one that was the champion once."""

STRANGER = "stranger"
SUCCESSIONS = frozenset({DecisionKind.PROMOTE, DecisionKind.ROLL_BACK})
Vector = dict[PolicyName, float]


@dataclass(frozen=True, kw_only=True)
class State:
    """An experiment as no service may ever have left it."""

    arms: tuple[ArmPlace, ...]
    limits: Limits
    profile: Profile


def random_state(rng: np.random.Generator) -> State:
    """Up to six challengers in any state, with parts around the limits."""
    count = int(rng.integers(0, len(CHALLENGERS) + 1))
    arms, left = [], WHOLE_PPM
    for name, _ in CHALLENGERS[:count]:
        status = ArmStatus(rng.choice(["active"] * 5 + ["throttled", "halted", "retired"]))
        mode = ArmMode(rng.choice(["live"] * 6 + ["shadow", "paper"]))
        routable = status is ArmStatus.ACTIVE and mode is ArmMode.LIVE
        # Shares around the limits, now and then nothing or nearly everything.
        share = int(rng.choice([0, 19_999, 20_000, 33_333, 100_000, 250_000, 250_001, 700_000]))
        ppm = min(left, share + int(rng.integers(0, 3))) if routable else 0
        left -= ppm
        arms.append(
            ArmPlace(
                policy=PolicyName(name),
                role=ArmRole.CHALLENGER,
                status=status,
                mode=mode,
                ppm=Ppm(ppm),
                trades=int(rng.choice([0, 29, 499, 500, 501, 10_000])),
                rung=Rung(rng.choice(["unproven"] * 3 + ["proven", "eligible"])),
            )
        )
    champion = ArmPlace(
        policy=PolicyName("prod"),
        role=ArmRole.CHAMPION,
        status=ArmStatus.ACTIVE,
        mode=ArmMode.LIVE,
        ppm=Ppm(left),
        trades=int(rng.choice([0, 10_000])),
    )
    return State(
        arms=(champion, *arms),
        limits=random_limits(rng),
        profile=Profile(rng.choice(list(Profile))),
    )


def random_limits(rng: np.random.Generator) -> Limits:
    """The usual limits, or any others."""
    if rng.random() < 0.5:
        return Limits()
    floor = int(rng.integers(0, 600_000))
    minimum = int(rng.integers(0, 30_000))
    cap = int(rng.integers(minimum, WHOLE_PPM))
    return Limits(
        champion_floor_ppm=floor,
        champion_floor_proven_ppm=int(rng.integers(0, floor + 1)),
        proven_trades=int(rng.choice([1, 30, 500])),
        unproven_cap_ppm=cap,
        arm_minimum_ppm=minimum,
        step_up=float(rng.choice([1.0, 1.1, 4 / 3, 1.5, 10.0])),
        start_ppm=int(rng.integers(minimum, cap + 1)),
    )


def random_vector(rng: np.random.Generator, state: State, kind: DecisionKind) -> Vector:
    """Parts at the very limits or one beyond, the champion taking the rest; then some damage."""
    kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
    challengers = [arm for arm in kept if arm.role is ArmRole.CHALLENGER]
    parts: Vector = {}
    for arm in challengers:
        cap = max(arm_cap_of(arm, limits=state.limits, profile=state.profile), arm.ppm)
        step = step_up_limit(arm.ppm, state.limits)
        most = {DecisionKind.RESCALE: min(cap, step)}.get(kind, cap)
        chosen = arm.ppm if kind in REDUCING else most * arm.routable
        if rng.random() < 0.2:
            interesting = [arm.ppm, state.limits.arm_minimum_ppm, cap, step]
            chosen = int(rng.choice(interesting)) + int(rng.integers(-1, 2))
        parts[arm.policy] = chosen
    _make_room(rng, state, kept, parts)
    parts[PolicyName("prod")] = WHOLE_PPM - sum(parts.values())
    damage(rng, parts)
    return parts


def _make_room(
    rng: np.random.Generator, state: State, kept: Sequence[ArmPlace], parts: Vector
) -> None:
    """Bring the champion to its floor, or a part beside it, where challengers took too much."""
    floor = champion_floor_of(kept, state.limits)
    over = sum(parts.values()) - (WHOLE_PPM - floor) + int(rng.integers(-1, 2))
    for policy in sorted(parts, key=lambda p: -parts[p]):
        give = min(max(0, over), parts[policy] - state.limits.arm_minimum_ppm)
        if rng.random() < 0.8 and give > 0:
            parts[policy] -= give
            over -= int(give)


def damage(rng: np.random.Generator, parts: Vector) -> None:
    """Now and then make the parts no allocation at all."""
    policies = list(parts)
    policy = policies[int(rng.integers(len(policies)))]
    match int(rng.integers(24)):
        case 0:
            parts[policy] += int(rng.choice([-1, 1]))
        case 1:
            parts[policy] = float(rng.choice([np.nan, np.inf, -np.inf]))
        case 2:
            parts[policy] -= WHOLE_PPM
            parts[policies[0]] += WHOLE_PPM
        case 3:
            del parts[policy]
        case 4:
            other = policies[int(rng.integers(len(policies)))]
            parts[other] += parts.pop(policy) if other != policy else 0
        case 5:
            parts[PolicyName(STRANGER)] = 0
        case _:
            pass


class Planted:
    """One experiment whose rows are set to any state, in transactions that are never committed."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        found = connection.execute("SELECT name, id FROM policies").fetchall()
        self.policy_ids: dict[str, int] = dict(found)

    def plant(self, state: State) -> None:
        """Set the experiment's limits and arms, with every trigger asleep."""
        self.connection.rollback()
        run = self.connection.execute
        run("SET LOCAL session_replication_role = replica")
        limits = asdict(state.limits)
        changes = ", ".join(f"{name} = %({name})s" for name in limits)
        run(
            f"UPDATE experiments SET profile = %(profile)s, {changes}",
            {**limits, "profile": state.profile.value},
        )
        # One challenger was the champion once, and the one of now never before.
        run(
            "UPDATE allocations SET floor_ppm = 0, champion_index = array_position(policy_ids, %s)",
            (self.policy_ids[EARLIER],),
        )
        run("DELETE FROM arm_statistics WHERE arm_id IN (SELECT id FROM arms)")
        run("DELETE FROM arms")
        for arm in state.arms:
            run(
                "WITH arm AS (INSERT INTO arms (experiment_id, policy_id, status, status_reason,"
                " mode, traffic_allocation, joined_at, rung)"
                " SELECT id, %s, %s, 'planted', %s, %s / 1000000.0, %s, %s FROM experiments"
                " RETURNING id) "
                "INSERT INTO arm_statistics SELECT arm.id, n, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL,"
                " 'no_trades', 0, NULL, 'no_trades', 0, NULL, NULL, NULL, 1, 1, 0, 0, 0, 0, 0, 0"
                " FROM arm, (SELECT %s::bigint AS n) trades",
                (
                    self.policy_ids[arm.policy],
                    arm.status.value,
                    arm.mode.value,
                    arm.ppm,
                    NOON,
                    arm.rung.value,
                    arm.trades,
                ),
            )
        run("SET LOCAL session_replication_role = origin")

    def verdict(
        self, parts: Mapping[str, float], kind: DecisionKind, successor: str | None = None
    ) -> str:
        """What the database says to this version; nothing of it stays."""
        ids = sorted((self.policy_ids[policy], part) for policy, part in parts.items())
        with refused_is_rolled_back(self.connection) as verdict:
            self.connection.execute(
                "WITH decision AS (INSERT INTO decisions (experiment_id, kind, decided_at, actor,"
                " reason, profile, strategy, code_version, inputs, inputs_digest, reasons)"
                " SELECT id, %s, %s, 'test', 'test', profile, strategy, '0',"
                " jsonb_build_object('policy', %s::text, 'demoted', 'prod'),"
                " sha256('x'), '{}' FROM experiments RETURNING id) SELECT id FROM decision",
                (kind.value, NOON, successor),
            )
            stored = self.connection.execute(
                "INSERT INTO allocations (experiment_id, version, epoch, decision_id, policy_ids,"
                " ppm, champion_index, floor_ppm, created_at)"
                " SELECT e.id, 1 + (SELECT max(version) FROM allocations), e.epoch + 1,"
                " (SELECT max(id) FROM decisions), %s::bigint[], %s::float8[]::integer[], 1, 0, %s"
                " FROM experiments e RETURNING floor_ppm",
                ([policy_id for policy_id, _ in ids], [float(part) for _, part in ids], NOON),
            ).fetchone()
            verdict[0] = f"lawful above {stored[0]}"
        return verdict[0]

    def verdict_by_hand(self, policy: str, traffic: str) -> str:
        """What the database says to a person's UPDATE."""
        with refused_is_rolled_back(self.connection) as verdict:
            self.connection.execute(
                "UPDATE bandit_arms SET traffic_allocation = %s::numeric WHERE policy_id = %s",
                (traffic, self.policy_ids[policy]),
            )
        return verdict[0]


@contextmanager
def refused_is_rolled_back(connection: psycopg.Connection) -> Iterator[list[str]]:
    """Yield the verdict to be: `lawful`, or the limit in the database's refusal."""
    verdict = ["lawful"]
    connection.execute("SAVEPOINT before")
    try:
        yield verdict
    except psycopg.errors.NumericValueOutOfRange:
        verdict[0] = "sum"  # NaN and infinities are no parts
    except psycopg.errors.CheckViolation as refused:
        message = str(refused.diag.message_primary)
        found = message.removeprefix("limit ").partition(":")[0]
        verdict[0] = found if message.startswith("limit ") else str(refused.diag.constraint_name)
    finally:
        connection.execute("ROLLBACK TO SAVEPOINT before")


def lawful_places(rng: np.random.Generator, state: State, limits: Limits) -> list[ArmPlace]:
    """The arms of a state that keeps its limits, full to what they leave."""
    kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
    floor, young_left = champion_floor_of(kept, limits), WHOLE_PPM - limits.champion_floor_ppm
    left, places = WHOLE_PPM - floor, []
    for i, arm in enumerate(kept):
        if not arm.routable or arm.role is ArmRole.CHAMPION:
            places.append(arm)
            continue
        reserved = limits.arm_minimum_ppm * (len(kept) - i)
        is_young = arm.trades < limits.proven_trades
        most = min(left, young_left) - reserved if is_young else left - reserved
        most = min(most, arm_cap_of(arm, limits=limits, profile=state.profile))
        part = int(rng.integers(limits.arm_minimum_ppm, most + 1))
        left, young_left = left - part, young_left - part * is_young
        places.append(replace(arm, ppm=Ppm(part)))
    champion = WHOLE_PPM - sum(p.ppm for p in places if p.role is ArmRole.CHALLENGER)
    return [replace(p, ppm=Ppm(champion)) if p.role is ArmRole.CHAMPION else p for p in places]
