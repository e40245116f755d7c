"""A challenger becomes the champion and an earlier one returns, each in one transaction."""

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
    join,
    open_btc,
    record_all,
    register,
    scale,
    sizes,
    together,
    traffic,
)
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core import evidence
from bandit.core.errors import (
    BanditError,
    InvalidAllocation,
    InvalidInput,
    InvalidTransition,
    Killed,
    Revoked,
    UnknownName,
)
from bandit.core.evidence import Tally, Terms
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import Limits
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    Assignment,
    DecisionKind,
    PolicyName,
    UnitId,
)
from bandit.service import auditing, experiments, killing, promoting, rebuilding, reporting
from bandit.service.assigning import Router
from bandit.service.routing_table import Opportunity
from bandit.storage import evidence as stored
from bandit.storage.engine import snapshot, transaction

NEW = PolicyName(CHALLENGER)
PROD = PolicyName("prod")
LATER = NOON + timedelta(hours=2)


def promote(engine: Engine, policy: str = CHALLENGER, **given: str) -> tuple[PolicyName, bool]:
    arm, changed = promoting.promote(
        engine,
        name="btc",
        policy=PolicyName(policy),
        reason=given.get("reason", "better for a quarter"),
        now=LATER,
        actor="ann",
    )
    return arm.place.policy, changed


def roll_back(engine: Engine, to: str | None = None) -> tuple[PolicyName, bool]:
    arm, changed = promoting.roll_back(
        engine,
        name="btc",
        to=None if to is None else PolicyName(to),
        reason="losing money",
        now=LATER,
        actor="bob",
    )
    return arm.place.policy, changed


def statuses(engine: Engine) -> dict[str, tuple[str, str]]:
    places = [arm.place for arm in experiments.load(engine, "btc").arms]
    return {p.policy: (p.role.value, p.status.value) for p in places}


def rows(engine: Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


# Promotion


def test_promoted_challenger_is_champion_and_the_old_one_its_hold_out(engine: Engine) -> None:
    open_btc(engine)
    before = sizes(engine)
    assert promote(engine, "eee02a74", reason=" better ") == (NEW, True)
    assert traffic(engine) == {PROD: 100_000, NEW: 900_000}
    assert statuses(engine) == {PROD: ("challenger", "active"), NEW: ("champion", "active")}
    record = experiments.load(engine, "btc")
    assert (record.experiment.champion, record.epoch) == (NEW, 2)
    grown = {"decisions", "allocations", "audit_log"}
    assert sizes(engine) == {t: n + (t in grown) for t, n in before.items()}


def test_decision_says_who_why_and_what_was_known_of_both(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, "prod", EVEN, prefix="p")
    feed(engine, CHALLENGER, BEST, prefix="c")
    promote(engine, reason="better for a quarter")
    made = reporting.decision_history(engine, "btc")[0]
    assert (made.kind, made.version, made.actor) == (DecisionKind.PROMOTE, 2, "ann")
    assert (made.reason, made.trading_day) == ("better for a quarter", None)
    assert (made.inputs["policy"], made.inputs["demoted"]) == (NEW, PROD)
    assert made.inputs["before"] == {PROD: 900_000, NEW: 100_000}
    known = {r["policy"]: (r["role"], r["pf_150"]["value"]) for r in made.inputs["readings"]}
    assert known == {PROD: ("champion", pytest.approx(1)), NEW: ("challenger", pytest.approx(4))}
    assert {r["check"]: r["verdict"] for r in made.reasons[NEW]} == {
        "trades": "PASS",
        "pf_150 >= pf_prod": "PASS",
        "dd_150 percent": "PASS",
        "traffic_allocation": "PASS",
    }
    statement = "SELECT actor, action, subject, details FROM audit_log ORDER BY id DESC LIMIT 1"
    details = {"decision": made.id, "version": 2, "reason": "better for a quarter"}
    assert rows(engine, statement) == [("ann", "PROMOTE", "btc", details)]


def test_every_version_remembers_its_own_champion(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    roll_back(engine)
    champions = [made.champion for made, _ in reporting.allocation_history(engine, "btc")]
    assert champions == [PROD, NEW, PROD]


def test_promotion_of_an_arm_against_the_rules_is_written_down_as_such(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    made = reporting.decision_history(engine, "btc")[0]
    assert {r["verdict"] for r in made.reasons[NEW]} >= {"FAIL", "INCONCLUSIVE"}


def test_the_same_promotion_again_changes_nothing(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    before = sizes(engine)
    assert promote(engine) == (NEW, False)
    assert sizes(engine) == before
    # Nor when the version in force is a later one.
    change(engine, ArmVerb.HALT, PROD)
    assert promote(engine) == (NEW, False)


def test_two_promotions_at_once_follow_one_another(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    first, second = (name for name, _ in arms(2))
    answers = together(lambda: promote(engine, first), lambda: promote(engine, second))
    assert answers == [(first, True), (second, True)]
    kinds = [made.kind for made in reporting.decision_history(engine, "btc")]
    assert kinds == [DecisionKind.PROMOTE, DecisionKind.PROMOTE, DecisionKind.ENTER]
    assert experiments.load(engine, "btc").epoch == 3
    assert together(*[lambda: promote(engine, PROD)] * 3).count((PROD, True)) == 1


def test_champion_that_was_not_promoted_is_refused(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(InvalidTransition, match="cannot promote prod: it is the champion"):
        promote(engine, "prod")
    promote(engine)
    roll_back(engine)
    with pytest.raises(InvalidTransition, match="cannot promote prod: it is the champion"):
        promote(engine, "prod")


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        (ArmVerb.THROTTLE, "throttled"),
        (ArmVerb.HALT, "halted"),
        (ArmVerb.RETIRE, "retired"),
    ],
)
def test_stopped_arm_is_refused_by_name(engine: Engine, verb: ArmVerb, status: str) -> None:
    open_btc(engine)
    change(engine, verb)
    before = sizes(engine)
    with pytest.raises(InvalidTransition, match=f"cannot promote {NEW}: it is {status}"):
        promote(engine)
    assert sizes(engine) == before


@pytest.mark.parametrize("mode", [ArmMode.SHADOW, ArmMode.PAPER])
def test_arm_that_is_only_scored_is_refused_by_name(engine: Engine, mode: ArmMode) -> None:
    open_btc(engine)
    join(engine, register(engine, "scored", "bbbbbbbb"), mode)
    with pytest.raises(InvalidTransition, match=f"cannot promote scored: its mode is {mode}"):
        promote(engine, "scored")


def test_unknown_arms_and_empty_reasons_are_refused(engine: Engine) -> None:
    open_btc(engine)
    register(engine, "stranger", "bbbbbbbb")
    with pytest.raises(UnknownName, match="no arm of experiment btc"):
        promote(engine, "stranger")
    with pytest.raises(UnknownName, match="no policy"):
        promote(engine, "nobody")
    with pytest.raises(InvalidInput, match=r"^reason: must be 1 to 1000 characters"):
        promote(engine, reason=" ")
    assert traffic(engine)[NEW] == 100_000


def test_killed_account_does_not_promote_but_rolls_back(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=LATER, actor="test")
    before = sizes(engine)
    with pytest.raises(Killed):
        promote(engine, "prod")
    assert sizes(engine) == before
    assert roll_back(engine) == (PROD, True)
    assert traffic(engine) == {PROD: 1_000_000, NEW: 0}
    with pytest.raises(Killed):
        assign(engine, ["u"])
    killing.release(engine, None, reason="over", now=LATER, actor="test")
    assert {made.policy for made in assign(engine, [f"u-{i}" for i in range(50)])} == {PROD}


def test_promotion_without_room_is_refused_by_the_limit(engine: Engine) -> None:
    limits = Limits(arm_minimum_ppm=90_000, start_ppm=90_000, champion_floor_ppm=730_000)
    open_btc(engine, challengers=arms(3), limits=limits)
    # The floor was kept for three; the hold-out takes the place of the one that is promoted.
    assert promote(engine, "arm-00") == ("arm-00", True)
    assert traffic(engine)["arm-00"] == 730_000
    with engine.begin() as connection:
        connection.execute(text("UPDATE experiments SET champion_floor_ppm = 900000"))
    with pytest.raises(InvalidAllocation) as refused:
        promote(engine, "arm-01")
    assert refused.value.limit == "champion_floor"


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


# Rollback


def test_rollback_returns_to_the_champion_before_and_halts_the_failed_one(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    promote(engine, "arm-00")
    assert traffic(engine) == {PROD: 100_000, "arm-00": 800_000, "arm-01": 100_000}
    before = sizes(engine)
    assert roll_back(engine) == (PROD, True)
    assert traffic(engine) == {PROD: 900_000, "arm-00": 0, "arm-01": 100_000}
    assert statuses(engine) == {
        PROD: ("champion", "active"),
        "arm-00": ("challenger", "halted"),
        "arm-01": ("challenger", "active"),
    }
    grown = {"decisions", "allocations", "audit_log"}
    assert sizes(engine) == {t: n + (t in grown) for t, n in before.items()}
    made = reporting.decision_history(engine, "btc")[0]
    assert (made.kind, made.actor, made.reason) == (DecisionKind.ROLL_BACK, "bob", "losing money")
    assert (made.inputs["policy"], made.inputs["demoted"]) == (PROD, "arm-00")
    assert {r["check"] for r in made.reasons["arm-00"]} == {
        "pf_challenger_30",
        "dd_challenger_pct",
    }
    failed = experiments.load(engine, "btc").arm_of(PolicyName("arm-00"))
    assert failed.status_reason == "losing money"
    # A person may let it try again.
    assert change(engine, ArmVerb.RESUME, "arm-00") == (ArmStatus.ACTIVE, True)
    assert traffic(engine)["arm-00"] == 20_000


def test_the_same_rollback_again_changes_nothing(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    roll_back(engine)
    before = sizes(engine)
    assert roll_back(engine) == (PROD, False)
    assert roll_back(engine, "prod") == (PROD, False)
    assert sizes(engine) == before
    with pytest.raises(InvalidTransition, match=r"cannot promote .*: it is halted"):
        promote(engine)


def test_without_a_champion_before_there_is_no_rollback(engine: Engine) -> None:
    open_btc(engine)
    with pytest.raises(InvalidTransition, match="no earlier champion is still an arm"):
        roll_back(engine)
    with pytest.raises(InvalidTransition, match=f"cannot roll back to {NEW}: earlier .*: none"):
        roll_back(engine, NEW)
    with pytest.raises(InvalidTransition, match="cannot roll back to prod"):
        roll_back(engine, "prod")


def test_rollback_passes_over_champions_that_retired(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    promote(engine, "arm-00")
    promote(engine, "arm-01")
    change(engine, ArmVerb.RETIRE, "arm-00")
    assert roll_back(engine) == (PROD, True)


def test_rollback_goes_further_back_only_to_whom_it_names(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    promote(engine, "arm-00")
    promote(engine, "arm-01")
    assert roll_back(engine) == ("arm-00", True)
    assert roll_back(engine, "prod") == (PROD, True)
    assert statuses(engine)["arm-00"] == ("challenger", "halted")
    # Halted, it comes back for nobody who does not ask for it.
    assert roll_back(engine) == (PROD, False)
    assert roll_back(engine, "arm-00") == ("arm-00", True)
    assert statuses(engine)["arm-00"] == ("champion", "active")


def test_throttled_hold_out_takes_over_and_a_halted_one_must_be_named(engine: Engine) -> None:
    open_btc(engine)
    promote(engine)
    change(engine, ArmVerb.THROTTLE, "prod")
    assert roll_back(engine) == (PROD, True)
    change(engine, ArmVerb.RESUME)
    promote(engine)
    change(engine, ArmVerb.HALT, "prod")
    with pytest.raises(InvalidTransition, match="cannot roll back to prod: it is halted"):
        roll_back(engine)
    assert roll_back(engine, "prod") == (PROD, True)
    assert statuses(engine)["prod"] == ("champion", "active")


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
        stored.fix_terms(connection, record.id, TERMS, now=NOON)
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


# What the database refuses by itself


def forge(engine: Engine, kind: str, policy: str, demoted: str, ppm: str) -> None:
    """Append a decision and its version past the service, with every part as it is told."""
    with engine.begin() as connection:
        decision = connection.execute(
            text(
                "INSERT INTO decisions (experiment_id, kind, decided_at, actor, reason, profile,"
                " strategy, code_version, inputs, inputs_digest, reasons)"
                " SELECT experiment_id, :kind, decided_at, actor, reason, profile, strategy,"
                " code_version, jsonb_build_object('policy', CAST(:policy AS text),"
                " 'demoted', CAST(:demoted AS text)), inputs_digest, reasons"
                " FROM decisions LIMIT 1 RETURNING id"
            ),
            {"kind": kind, "policy": policy, "demoted": demoted},
        ).scalar_one()
        connection.execute(
            text(
                "INSERT INTO allocations SELECT experiment_id, version + 1, epoch + 1, :decision,"
                " policy_ids, CAST(:ppm AS integer[]), 1, 0, created_at FROM allocations"
                " ORDER BY version DESC LIMIT 1"
            ),
            {"decision": decision, "ppm": ppm},
        )


@pytest.mark.parametrize(
    ("kind", "policy", "demoted", "ppm", "limit"),
    [
        ("PROMOTE", "prod", "prod", "{900000,100000}", "limit champion"),
        ("PROMOTE", CHALLENGER, CHALLENGER, "{100000,900000}", "limit champion"),
        ("PROMOTE", CHALLENGER, "stranger", "{100000,900000}", "limit champion"),
        ("PROMOTE", "stranger", "prod", "{100000,900000}", "limit champion"),
        ("PROMOTE", CHALLENGER, "prod", "{100001,899999}", "limit reduces_only"),
        ("PROMOTE", CHALLENGER, "prod", "{19999,980001}", "limit arm_minimum"),
        ("ROLL_BACK", CHALLENGER, "prod", "{0,1000000}", "limit champion"),
        ("DEMOTE", CHALLENGER, "prod", "{0,1000000}", "decisions_kind_check"),
    ],
)
def test_forged_succession_is_refused_by_name(
    engine: Engine, kind: str, policy: str, demoted: str, ppm: str, limit: str
) -> None:
    open_btc(engine)
    register(engine, "stranger", "bbbbbbbb")
    with pytest.raises(IntegrityError, match=limit):
        forge(engine, kind, policy, demoted, ppm)
    assert experiments.load(engine, "btc").experiment.champion == PROD


def test_faithful_succession_is_lawful(engine: Engine) -> None:
    open_btc(engine)
    forge(engine, "PROMOTE", CHALLENGER, "prod", "{100000,900000}")
    assert experiments.load(engine, "btc").experiment.champion == NEW
    with pytest.raises(IntegrityError, match="limit reduces_only"):
        forge(engine, "ROLL_BACK", "prod", CHALLENGER, "{999999,1}")
    forge(engine, "ROLL_BACK", "prod", CHALLENGER, "{1000000,0}")
    assert experiments.load(engine, "btc").experiment.champion == PROD


@pytest.mark.parametrize(
    "change",
    [
        "champion_id = (SELECT id FROM policies WHERE name = 'prod')",
        "champion_id = (SELECT id FROM policies WHERE name = 'prod'), champion_epoch = epoch",
        "champion_epoch = NULL",
        "champion_epoch = champion_epoch - 1",
    ],
)
def test_champion_follows_the_allocation_alone(engine: Engine, change: str) -> None:
    open_btc(engine)
    promote(engine)
    refused = pytest.raises(IntegrityError, match="the champion follows the allocation")
    with refused, engine.begin() as connection:
        connection.execute(text(f"UPDATE experiments SET {change}"))


def test_new_experiment_has_the_champion_it_opens_with(engine: Engine) -> None:
    open_btc(engine)
    assert rows(engine, "SELECT champion_epoch FROM experiments") == [(None,)]
    promote(engine)
    assert rows(engine, "SELECT champion_epoch, epoch FROM experiments") == [(2, 2)]
    change(engine, ArmVerb.HALT, "prod")
    assert rows(engine, "SELECT champion_epoch, epoch FROM experiments") == [(2, 3)]
