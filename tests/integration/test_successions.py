"""What another champion means to decisions, fallbacks, numbers and evidence of before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from ledger import (
    BEST,
    CHALLENGER,
    EVEN,
    FALLEN,
    NIGHT,
    NOON,
    POOR,
    arms,
    assign,
    assign_to,
    change,
    closed,
    feed,
    open_btc,
    promote,
    record_all,
    roll_back,
    scale,
    traffic,
)
from sqlalchemy import Engine, text

from bandit.core import evidence
from bandit.core.errors import (
    BanditError,
    InvalidInput,
    Revoked,
)
from bandit.core.evidence import Tally, Terms
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import (
    ArmRole,
    Assignment,
    DecisionKind,
    PolicyName,
    UnitId,
)
from bandit.service import auditing, experiments, promoting, rebuilding, reporting
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage import evidence as stored
from bandit.storage.engine import snapshot, transaction

NEW = PolicyName(CHALLENGER)
PROD = PolicyName("prod")
LATER = NOON + timedelta(hours=2)


def statuses(engine: Engine) -> dict[str, tuple[str, str]]:
    places = [arm.place for arm in experiments.load(engine, "btc").arms]
    return {p.policy: (p.role.value, p.status.value) for p in places}


def rows(engine: Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


# What was decided before


def claimable(engine: Engine, made: Assignment) -> bool:
    try:
        Router(engine).claim(made.id, now=made.decided_at)
    except Revoked:
        return False
    return True


def test_decisions_from_before_are_void_for_every_arm(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    first, bystander = (name for name, _ in arms(2))
    before = [assign_to(engine, policy, 1)[0] for policy in ("prod", first, bystander)]
    kept = [assign_to(engine, policy, 2)[1] for policy in ("prod", first, bystander)]
    assert all(claimable(engine, made) for made in kept)
    promote(engine, first)
    assert [claimable(engine, made) for made in before] == [False] * 3
    # They stay void when the roles are what they were.
    roll_back(engine)
    assert [claimable(engine, made) for made in before] == [False] * 3
    # A retry gets the decision it got, with the propensity it had.
    again = assign(engine, [made.unit_id for made in before])
    assert again == before
    assert claimable(engine, assign_to(engine, bystander, 1, prefix="v")[0])


def test_open_position_keeps_its_arm(engine: Engine) -> None:
    open_btc(engine)
    opened = [assign_to(engine, policy, 1)[0] for policy in ("prod", CHALLENGER)]
    promote(engine)

    def follow(units: Sequence[str]) -> list[Assignment]:
        asked = [
            Opportunity(unit_id=UnitId(unit), instrument="BTCUSD", position=made.id)
            for unit, made in zip(units, opened, strict=True)
        ]
        return Router(engine).assign("btc", asked, now=NOON)

    after = follow(["p", "c"])
    assert [made.policy for made in after] == [PROD, NEW]
    assert [made.propensity for made in after] == [1.0, 1.0]
    assert all(claimable(engine, made) for made in after)
    roll_back(engine)
    assert [made.policy for made in follow(["p2", "c2"])] == [PROD, NEW]


def test_outcomes_and_statistics_stay_with_their_arm(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, ["0.001", "-0.001"], prefix="c")
    made = [assign_to(engine, policy, 1, prefix="w")[0] for policy in ("prod", CHALLENGER)]
    statement = "SELECT * FROM arm_statistics ORDER BY arm_id"
    before = rows(engine, statement)
    promote(engine)
    assert rows(engine, statement) == before
    record_all(engine, [closed(one, "0.002") for one in made], now=LATER)
    trades = {p.policy: p.trades for p in experiments.load(engine, "btc").places}
    assert trades == {PROD: 1, NEW: 3}


def test_new_units_are_routed_on_the_new_roles(engine: Engine) -> None:
    open_btc(engine)
    router = Router(engine)
    router.table("btc")  # remembered from before
    promote(engine)
    units = [Opportunity(unit_id=UnitId(f"u-{i}"), instrument="BTCUSD") for i in range(200)]
    made = router.assign("btc", units, now=LATER)
    seen = {(one.policy, one.role, one.propensity, one.allocation_version) for one in made}
    assert seen == {(NEW, ArmRole.CHAMPION, 0.9, 2), (PROD, ArmRole.CHALLENGER, 0.1, 2)}
    assert assign(engine, [one.unit_id for one in made], now=LATER) == made


# Fallbacks


def told(unit: str, arm_id: int | None) -> Opportunity:
    return Opportunity(
        unit_id=UnitId(unit), instrument="BTCUSD", fallback_at=NOON, fallback_arm_id=arm_id
    )


def test_fallback_is_of_the_champion_that_the_bot_knew(engine: Engine) -> None:
    ids = {arm.place.policy: arm.id for arm in open_btc(engine).arms}
    stale = Router(engine)
    stale.table("btc")
    promote(engine)
    roll_back(engine)  # the challenger is halted now, and had been champion meanwhile
    for router in (stale, Router(engine)):
        [made] = router.assign("btc", [told("f", ids[NEW])], now=LATER)
        assert (made.policy, made.role, made.sticky) == (NEW, ArmRole.CHAMPION, True)
    [unsaid] = stale.assign("btc", [told("g", None)], now=LATER)
    assert unsaid.policy == PROD
    known = promoting.once_champion(engine, name="btc", policy=NEW)
    assert known.id == ids[NEW]


def test_fallback_to_another_arm_than_was_routed_conflicts(engine: Engine) -> None:
    ids = {arm.place.policy: arm.id for arm in open_btc(engine).arms}
    [routed] = assign_to(engine, "prod", 1)
    promote(engine)
    with pytest.raises(BanditError, match="had been routed to prod before"):
        Router(engine).assign("btc", [told(routed.unit_id, ids[NEW])], now=LATER)
    [same] = Router(engine).assign("btc", [told(routed.unit_id, ids[PROD])], now=LATER)
    assert same == routed


def test_only_champions_stand_in(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(InvalidInput, match=r"^policy: must have been champion of btc"):
        promoting.once_champion(engine, name="btc", policy=NEW)
    ids = {arm.place.policy: arm.id for arm in experiments.load(engine, "btc").arms}
    change(engine, ArmVerb.HALT)
    with pytest.raises(BanditError, match="takes no traffic"):
        Router(engine).assign("btc", [told("f", ids[NEW])], now=LATER)


# What reads the champion


def test_opening_again_knows_the_experiment_by_the_champion_it_opened_with(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    assert open_btc(engine).experiment.champion == NEW


def test_hold_out_is_judged_as_a_challenger_on_its_trades_since(engine: Engine) -> None:
    open_btc(engine)
    # As a challenger it would have been halted for this long ago.
    feed(engine, "prod", FALLEN, prefix="p")
    promote(engine)
    later = LATER + timedelta(hours=1)
    # Of thirty trades that are needed to judge it, it has twenty-nine, and no deep fall in them.
    at = feed(engine, "prod", POOR[:29], now=later, prefix="h")
    assert statuses(engine)["prod"] == ("challenger", "active")
    scale(engine)
    assert statuses(engine)["prod"] == ("challenger", "active")
    feed(engine, "prod", POOR[29:], now=at + timedelta(days=3), prefix="i")
    assert statuses(engine)["prod"] == ("challenger", "throttled")


def test_new_champion_is_no_longer_held_against_the_checklist(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    feed(engine, CHALLENGER, POOR, now=LATER, prefix="c")
    assert statuses(engine)[NEW] == ("champion", "active")
    by_policy = {a["policy"]: a for a in reporting.report(engine, "btc").to_json()["arms"]}
    assert (by_policy[NEW]["role"], by_policy[NEW]["checklist"]) == ("champion", [])
    assert by_policy[NEW]["pf_prod"] is None
    assert [r["metric"] for r in by_policy[PROD]["checklist"]] == [
        "pf_challenger_30",
        "dd_challenger_pct",
    ]
    newest = reporting.report(engine, "btc").to_json()["decisions"][0]
    assert (newest["kind"], newest["inputs"]["policy"]) == ("PROMOTE", NEW)


def test_pf_prod_is_the_new_champions(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, "prod", EVEN, prefix="p")
    feed(engine, CHALLENGER, BEST, prefix="c")
    promote(engine)
    statement = "SELECT p.name, b.pf_prod FROM bandit_arms b JOIN policies p ON p.id = b.policy_id"
    found = dict(rows(engine, statement))
    assert found[PROD] == pytest.approx(4)


def test_a_night_scales_on_the_new_roles(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, "prod", BEST, prefix="p")
    feed(engine, CHALLENGER, ["0.002", "0.002", "-0.0015"] * 10, prefix="c")
    promote(engine)
    night = scale(engine, now=NIGHT)
    assert night.decision.kind is DecisionKind.RESCALE
    # The hold-out may win the traffic back, by the rule for every challenger.
    assert traffic(engine) == {PROD: 150_000, NEW: 850_000}


def test_update_by_hand_takes_from_the_new_champion(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    statement = "UPDATE bandit_arms SET traffic_allocation = 0.05 WHERE policy_id = {}"
    [(prod_id,)] = rows(engine, "SELECT id FROM policies WHERE name = 'prod'")
    with engine.begin() as connection:
        connection.execute(text(statement.format(prod_id)))
    assert traffic(engine) == {PROD: 50_000, NEW: 950_000}


# Evidence

TERMS = Terms(unit=0.004, baseline=0.2, profit_factor=1.5)


def cohorts(engine: Engine) -> dict[tuple[str, str], Tally]:
    """Every stored cohort by challenger and champion; all decisions here are of one day."""
    with snapshot(engine) as connection:
        names = {arm.id: arm.place.policy for arm in experiments.load(engine, "btc").arms}
        found: dict[tuple[str, str], Tally] = {}
        for arm_id, name in names.items():
            for key, tally in stored.tallies(connection, arm_id).items():
                found[name, names[key.champion_id]] = tally
    return found


def tally_of(made: Sequence[Assignment], returns: Sequence[str], *, challenger: str) -> Tally:
    rewarded = evidence.rewards([float(r) / TERMS.unit for r in returns], TERMS)
    chosen = np.array([one.policy == challenger for one in made])
    return Tally.of(evidence.routed_scores(rewarded, chosen, 0.1), chosen=chosen)


def test_evidence_starts_anew_between_the_new_pair(engine: Engine) -> None:
    record = open_btc(engine)
    with transaction(engine) as connection:
        stored.fix_terms(connection, record.id, TERMS, fixed_at=NOON)
    returns = [f"{(i % 7 - 2) / 1000}" for i in range(120)]
    before = assign(engine, [f"a-{i}" for i in range(120)])
    assert {one.policy for one in before} == {PROD, NEW}
    told_before = [closed(a, r) for a, r in zip(before, returns, strict=True)]
    record_all(engine, told_before[:60], now=LATER)
    promote(engine)
    after = assign(engine, [f"b-{i}" for i in range(120)], now=LATER)
    assert {one.policy for one in after} == {PROD, NEW}
    told_after = [closed(a, r) for a, r in zip(after, returns, strict=True)]
    # What was decided before is told after, and counts where it was decided.
    record_all(engine, [*told_after, *told_before[60:]], now=LATER + timedelta(hours=9))
    assert cohorts(engine) == {
        (NEW, PROD): tally_of(before, returns, challenger=NEW),
        (PROD, NEW): tally_of(after, returns, challenger=PROD),
    }
    roll_back(engine)
    later = LATER + timedelta(hours=1)
    alone = assign(engine, [f"c-{i}" for i in range(30)], now=later)
    record_all(engine, [closed(a, "0.001") for a in alone], now=later + timedelta(hours=9))
    assert len(cohorts(engine)) == 2  # nobody was drawn against the champion
    assert rebuilding.compare(engine, now=later + timedelta(days=1)).mismatches == ()


def test_whole_story_is_vouched_for_by_the_audit_log(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, BEST, prefix="c")
    promote(engine)
    assign(engine, ["a", "b"], now=LATER)
    roll_back(engine)
    auditing.seal(engine, now=LATER)
    findings = auditing.verify(engine, []).findings
    assert [f for f in findings if f.kind != "unanchored"] == []
