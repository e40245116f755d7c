"""The database and the model give one verdict on every allocation, lawful or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger import NOON, open_btc
from sqlalchemy import Engine

from bandit.core.allocators.ramp import propose
from bandit.core.errors import InvalidAllocation
from bandit.core.limits import (
    REDUCING,
    ArmPlace,
    Limits,
    arm_cap_of,
    champion_floor_of,
    check,
    step_up_limit,
    with_part,
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
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, RampRule

SEED = 20261120
STATES = 600
VECTORS = 8
CHALLENGERS = [(f"arm-{i}", f"{i:08x}") for i in range(6)]
STRANGER = "stranger"
Vector = dict[PolicyName, float]


@dataclass(frozen=True, kw_only=True)
class State:
    """An experiment as no service may ever have left it."""

    arms: tuple[ArmPlace, ...]
    limits: Limits
    profile: Profile


def random_state(rng: np.random.Generator) -> State:
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
        step = step_up_limit(arm.ppm, state.limits.step_up)
        most = {DecisionKind.RESCALE: min(cap, step)}.get(kind, cap)
        chosen = arm.ppm if kind in REDUCING else most * arm.routable
        if rng.random() < 0.2:
            interesting = [arm.ppm, state.limits.arm_minimum_ppm, cap, step]
            chosen = int(rng.choice(interesting)) + int(rng.integers(-1, 2))
        parts[arm.policy] = chosen
    _make_room(rng, state, kept, parts)
    parts[PolicyName("prod")] = WHOLE_PPM - sum(parts.values())
    _damage(rng, parts)
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


def _damage(rng: np.random.Generator, parts: Vector) -> None:
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


def model_verdict(state: State, parts: Vector, kind: DecisionKind) -> str:
    """The limit that `parts` break, or the floor they are lawful above."""
    kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
    try:
        check(parts, arms=kept, limits=state.limits, profile=state.profile, kind=kind)
    except InvalidAllocation as refused:
        return "sum" if refused.limit == "bounds" else refused.limit
    floor = champion_floor_of(kept, state.limits)
    held = int(parts[PolicyName("prod")])
    return f"lawful above {min(floor, held) if kind in REDUCING else floor}"


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

    def verdict(self, parts: Mapping[str, float], kind: DecisionKind) -> str:
        """What the database says to this version; nothing of it stays."""
        ids = sorted((self.policy_ids[policy], part) for policy, part in parts.items())
        with refused_is_rolled_back(self.connection) as verdict:
            self.connection.execute(
                "WITH decision AS (INSERT INTO decisions (experiment_id, kind, decided_at, actor,"
                " reason, profile, strategy, code_version, inputs, inputs_digest, reasons)"
                " SELECT id, %s, %s, 'test', 'test', profile, strategy, '0', '{}',"
                " sha256('x'), '{}' FROM experiments RETURNING id) SELECT id FROM decision",
                (kind.value, NOON),
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


@pytest.fixture
def planted(engine: Engine) -> Iterator[Planted]:
    open_btc(engine, challengers=[*CHALLENGERS, (STRANGER, "f" * 8)])
    raw = engine.raw_connection()
    try:
        yield Planted(raw.driver_connection)
    finally:
        raw.close()


def test_database_and_model_agree_on_every_allocation(planted: Planted) -> None:
    rng = np.random.default_rng(SEED)
    seen: Counter[str] = Counter()
    for _ in range(STATES):
        state = random_state(rng)
        planted.plant(state)
        for _ in range(VECTORS):
            kind = DecisionKind(rng.choice(list(DecisionKind)))
            parts = random_vector(rng, state, kind)
            expected = model_verdict(state, parts, kind)
            assert planted.verdict(parts, kind) == expected, (state, parts, kind)
            seen[expected.partition(" ")[0]] += 1
    # Not vacuous: every limit refused something, and a good part was lawful.
    assert seen.keys() == {
        "lawful",
        "sum",
        "arms",
        "reduces_only",
        "inactive_zero",
        "arm_cap",
        "unproven_cap",
        "arm_minimum",
        "step_up",
        "champion_floor",
        "challengers_cap",
    }
    assert seen["lawful"] > STATES * VECTORS / 10
    assert min(seen.values()) >= 5, seen


def test_database_and_model_agree_on_updates_by_hand(planted: Planted) -> None:
    rng = np.random.default_rng(SEED + 1)
    seen: Counter[str] = Counter()
    for _ in range(STATES // 2):
        state = random_state(rng)
        kept = [arm for arm in state.arms if arm.status is not ArmStatus.RETIRED]
        challengers = [arm for arm in kept if arm.role is ArmRole.CHALLENGER]
        if not challengers:
            continue
        planted.plant(state)
        arm = challengers[int(rng.integers(len(challengers)))]
        vector = random_vector(rng, state, DecisionKind.RESCALE)
        part = vector.get(arm.policy, arm.ppm + 1)
        traffic = f"{part / WHOLE_PPM:.6f}"
        verdict = planted.verdict_by_hand(arm.policy, traffic)
        seen[verdict] += 1
        if part == arm.ppm:
            assert verdict == "lawful"  # nothing changes, so nothing is asked
        elif 0 <= part <= WHOLE_PPM:
            proposed = with_part(kept, arm.policy, int(part))
            expected = model_verdict(state, proposed, DecisionKind.RESCALE)
            # The name may differ: a row's own check speaks before the version's guard.
            assert (verdict == "lawful") == expected.startswith("lawful"), (state, arm, part)
        else:
            assert verdict != "lawful", traffic
    assert seen["lawful"] >= 10
    assert len(seen) >= 5, seen


factors = st.builds(
    lambda gain, n, lost: ProfitFactor(
        gross_profit=gain if n > lost else 0.0,
        gross_loss=float(lost),
        n=n,
        n_losses=lost,
    ),
    st.floats(0, 100),
    st.integers(2, 200),
    st.integers(0, 2),
)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.data())
def test_nightly_proposals_are_lawful(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    state = random_state(rng)
    limits = Limits()
    kept = lawful_places(rng, state, limits)
    readings = [
        ArmReading(
            place=place,
            pf_short=data.draw(factors),
            pf_long=data.draw(factors),
            dd_long_percent=data.draw(st.floats(0, 10)),
            pf_prod=data.draw(factors),
        )
        for place in kept
    ]
    made = propose(readings, rule=RampRule(), limits=limits, profile=state.profile)
    check(
        made.ppm,
        arms=kept,
        limits=limits,
        profile=state.profile,
        kind=DecisionKind.RESCALE,
    )


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
