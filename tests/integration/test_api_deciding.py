"""`decide`: the assignment of `assignments`, and what the assigned arm's stored policy does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_service import CheckedClient, post, row_counts, service
from ledger import CHALLENGER, NOON, assign_to, change, open_btc
from made_up_encoder_policy import embedding_policy
from made_up_policy import FEATURES, GOLDEN, RISING, WEIGHTS, deciding
from sqlalchemy import Engine

from bandit.core.acting import ActingRules, Action, Move
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import PolicySha
from bandit.service import killing
from bandit.service.assigning import Router
from config.settings import Settings
from learners.artifact import read
from learners.decider import Decider
from learners.embedding_memory import Embeddings
from learners.holding import Holding
from liveops import deciders
from liveops.api.deciding import Sight, action_of
from liveops.deciders import loaded
from liveops.doctor import Level, checkup
from liveops.latch import Latch

ASSIGN = "/v1/experiments/btc/assignments"
DECIDE = "/v1/experiments/btc/decide"
OTHER = replace(FEATURES, adx_bars=5)
"""The same names as `FEATURES`, and other numbers under them."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def settings(root: Path, **sections: Any) -> dict[str, Any]:
    return {"home": str(root.parent), **sections}


def body(unit: str, **fields: Any) -> dict[str, Any]:
    """A lawful question that `fields` may spoil; a field set to ... is left out."""
    told = {"unit_id": unit, "instrument": "BTCUSD", "features": RISING} | fields
    return {name: value for name, value in told.items() if value is not ...}


def decide(client: CheckedClient, unit: str, **fields: Any) -> dict[str, Any]:
    answer = client.post(DECIDE, json=body(unit, **fields))
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def refused(client: CheckedClient, **fields: Any) -> dict[str, Any]:
    answer = client.post(DECIDE, json=body("u", **fields))
    problem: dict[str, Any] = answer.json()
    assert answer.status_code == problem["status"]
    return problem


def open_with(engine: Engine, *shas: str) -> None:
    """Open `btc` with an external champion and these policies as challengers."""
    names = [CHALLENGER, "second", "third"]
    open_btc(engine, challengers=list(zip(names, shas, strict=False)))


def test_the_assignment_is_that_of_assignments_whoever_is_asked_first(
    engine: Engine, root: Path
) -> None:
    open_with(engine, deciding(root).sha)
    with service(engine, settings=settings(root)) as client:
        for number in range(40):
            unit = {"unit_id": f"u-{number}", "instrument": "BTCUSD"}
            plain = client.post(ASSIGN, json=unit).json() if number % 2 else None
            made = decide(client, f"u-{number}")
            action, why = made.pop("action"), made.pop("no_action_reason")
            assert made == (plain or client.post(ASSIGN, json=unit).json())
            if made["policy"] == CHALLENGER:
                assert (action["move"], action["position"], why) == ("open", 1.0, None)
            else:
                assert (action, why) == (None, "prod is not stored here: it decides where it runs")
    assert row_counts(engine)["assignments"] == 40


def test_an_action_says_what_was_wanted_and_what_was_checked(engine: Engine, root: Path) -> None:
    open_with(engine, deciding(root).sha)
    [unit] = assign_to(engine, CHALLENGER, 1)
    with service(engine, settings=settings(root)) as client:
        volatile = RISING | {"return_1": 0.08, "volatility_ratio": 2.5}
        action = decide(client, unit.unit_id, features=volatile)["action"]
    confidence = action.pop("confidence")
    assert confidence == pytest.approx(0.68997, abs=1e-5)  # 1 / (1 + exp(-0.8))
    checks = action.pop("reasons")
    assert action == {"move": "open", "position": 0.5, "size": 0.5, "choice": "long"}
    assert [(r["check"], r["value"], r["limit"], r["verdict"], r["note"]) for r in checks] == [
        ("confidence", confidence, 0.65, "PASS", ""),
        ("adx", 31.0, 25.0, "PASS", ""),
        ("trend", 1.0, 0.0, "PASS", ""),
        ("volatility", 2.5, 2.0, "FAIL", "size times 0.5"),
    ]


def test_the_same_unit_is_decided_anew_and_a_position_may_always_be_left(
    engine: Engine, root: Path
) -> None:
    open_with(engine, deciding(root).sha)
    [unit] = assign_to(engine, CHALLENGER, 1)
    falling = RISING | {"return_1": -1.0}
    with service(engine, settings=settings(root)) as client:
        first = decide(client, unit.unit_id)
        again = decide(client, unit.unit_id, features=falling)  # against the trend
        assert (first.pop("action")["move"], again.pop("action")["move"]) == ("open", "stay")
        assert first == again
        held = {"held": 1, "unrealised_return": -0.004, "holding_share": 0.25}
        made = decide(client, "next", features=falling, position=first["assignment_id"], **held)
        assert (made["policy"], made["propensity"]) == (CHALLENGER, 1.0)
        assert (made["action"]["move"], made["action"]["size"]) == ("close", 1.0)


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"features": ...}, 422, "features"),
        ({"features": [1.0]}, 422, "features"),
        ({"features": {}}, 422, "features.return_1"),
        ({"features": {n: v for n, v in RISING.items() if n != "rsi"}}, 422, "features.rsi"),
        ({"features": RISING | {"mood": 1.0}}, 422, "features.mood"),
        ({"features": RISING | {"rsi": None}}, 422, "features.rsi"),
        ({"features": RISING | {"rsi": "0.5"}}, 422, "features.rsi"),
        ({"features": RISING | {"rsi": True}}, 422, "features.rsi"),
        ({"features": RISING, "features_digest": "rsi"}, 422, "features_digest"),
        ({"features": RISING, "features_digest": OTHER.digest}, 422, "features_digest"),
        ({"held": 2, "unrealised_return": 0, "holding_share": 0}, 422, "held"),
        ({"held": 1}, 422, "unrealised_return"),
        ({"held": 1, "unrealised_return": 0.1}, 422, "holding_share"),
        ({"held": 1, "unrealised_return": 0.1, "holding_share": -1}, 422, "holding_share"),
        ({"unrealised_return": 0.1}, 422, "unrealised_return"),
        ({"unit_id": ""}, 422, "unit_id"),
        ({"confidence": 1}, 422, "confidence"),
    ],
)
def test_nothing_is_assigned_for_a_question_that_cannot_be_answered(
    engine: Engine, root: Path, fields: dict[str, Any], status: int, field: str
) -> None:
    open_with(engine, deciding(root).sha)
    with service(engine, settings=settings(root)) as client:
        problem = refused(client, **fields)
    assert (problem["status"], problem["field"]) == (status, field)
    assert row_counts(engine)["assignments"] == 0


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_a_number_that_is_none_is_no_json(engine: Engine, root: Path, number: bytes) -> None:
    open_with(engine, deciding(root).sha)
    told = b'{"unit_id": "u", "instrument": "BTCUSD", "features": {"rsi": ' + number + b"}}"
    with service(engine, settings=settings(root)) as client:
        problem = post(client, DECIDE, told).json()
    assert (problem["code"], problem["field"]) == ("malformed_json", "features.rsi")
    assert row_counts(engine)["assignments"] == 0


def test_who_asks_where_nobody_is_stored_gets_the_assignment_alone(
    engine: Engine, root: Path
) -> None:
    # A policy of another machine has a full hash too.
    sha = deciding(root.parent / "elsewhere").sha
    open_with(engine, sha)
    [unit] = assign_to(engine, CHALLENGER, 1)
    with service(engine, settings=settings(root)) as client:
        made = decide(client, unit.unit_id, features={"mood": 1.0})
        assert made["action"] is None
        assert made["no_action_reason"].startswith(f"{CHALLENGER} is not stored here")
        assert made["policy_sha"] == sha


@pytest.mark.parametrize("file", [WEIGHTS, GOLDEN])
def test_a_policy_that_was_tampered_with_never_decides(
    engine: Engine, root: Path, file: str
) -> None:
    sha = deciding(root).sha
    open_with(engine, sha)
    path = root / sha / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with service(engine, settings=settings(root)) as client:
        problem = refused(client)
        assert (problem["status"], problem["code"]) == (409, "artifact_refused")
        assert problem["detail"].startswith(f"artifacts/{sha}/{file}: must have the SHA-256")
        assert row_counts(engine)["assignments"] == 0
        finding = stored_policies(engine, root)
        assert finding[0] is Level.FAIL
        assert f"artifacts/{sha}/{file}" in finding[1]
        # Who asks for the arm alone still gets it, and a person has two ways out.
        assert client.post(ASSIGN, json={"unit_id": "v", "instrument": "BTCUSD"}).is_success
        path.write_bytes(whole)
        assert decide(client, "u")["unit_id"] == "u"
        assert stored_policies(engine, root) == (
            Level.OK,
            "1 of 2 policies of arms are stored here and can decide",
        )


def stored_policies(engine: Engine, root: Path) -> tuple[Level, str]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    chosen = Settings.model_validate(settings(root, database={"url": url}))
    [found] = [f for f in checkup(chosen, demo=False) if f.check == "stored policies"]
    return found.level, found.message


def test_a_refused_policy_stands_in_nobodys_way_once_its_arm_is_retired(
    engine: Engine, root: Path
) -> None:
    sound, spoilt = deciding(root).sha, deciding(root, slope=4.0).sha
    open_with(engine, sound, spoilt)
    [unit] = assign_to(engine, "second", 1)
    (root / spoilt / WEIGHTS).write_bytes(b"")
    router = Router(engine)
    with service(engine, settings=settings(root), router=router) as client:
        assert refused(client)["code"] == "artifact_refused"
        client.post("/v1/experiments/btc/arms/second/retire", json={"reason": "spoilt"})
        router.refresh({"btc": client.get("/v1/experiments/btc").json()["epoch"]})  # it is followed
        assert decide(client, "u")["unit_id"] == "u"
        # What was assigned to it stays so: the answer says why there is no action, and is no error.
        made = decide(client, unit.unit_id)
        assert (made["policy"], made["action"]) == ("second", None)
        assert made["no_action_reason"].startswith("the stored policy is refused: artifacts/")


def test_features_of_the_same_names_are_told_apart_by_their_digest(
    engine: Engine, root: Path
) -> None:
    assert OTHER.names == FEATURES.names
    open_with(engine, deciding(root).sha, deciding(root, OTHER).sha)
    [first], [second] = assign_to(engine, CHALLENGER, 1), assign_to(engine, "second", 1)
    with service(engine, settings=settings(root)) as client:
        problem = refused(client)
        assert (problem["status"], problem["field"]) == (422, "features_digest")
        for spec, decides, waits in ((FEATURES, first, second), (OTHER, second, first)):
            told = {"features_digest": spec.digest}
            assert decide(client, decides.unit_id, **told)["action"]["move"] == "open"
            made = decide(client, waits.unit_id, **told)
            assert made["action"] is None
            assert "sees other features" in made["no_action_reason"]


def test_an_arm_that_is_gone_is_held_to_its_own_features(engine: Engine, root: Path) -> None:
    open_with(engine, deciding(root).sha)
    [unit] = assign_to(engine, CHALLENGER, 1)
    change(engine, ArmVerb.RETIRE)
    with service(engine, settings=settings(root)) as client:
        assert decide(client, unit.unit_id)["action"]["move"] == "open"
        made = decide(client, unit.unit_id, features={"mood": 1.0})
        assert made["action"] is None
        assert "features.return_1: is required" in made["no_action_reason"]


def test_a_network_that_overflows_gives_no_action_and_no_error(engine: Engine, root: Path) -> None:
    open_with(engine, deciding(root, slope=2e38).sha)
    [unit] = assign_to(engine, CHALLENGER, 1)
    with service(engine, settings=settings(root)) as client:
        made = decide(client, unit.unit_id, features=RISING | {"return_1": 5.0})
    assert made["action"] is None
    assert made["no_action_reason"].startswith(f"{CHALLENGER} has no answer: confidence: must be")


def test_kill_and_latch_stop_it_as_they_stop_assignments(engine: Engine, tmp_path: Path) -> None:
    root, latch = tmp_path / "artifacts", Latch(tmp_path / "KILLED")
    open_with(engine, deciding(root).sha)
    with service(engine, settings=settings(root), latch=latch) as client:
        latch.set(reason="drill", actor="test", now=NOON)
        assert (refused(client)["status"], refused(client)["code"]) == (423, "killed")
        latch.path.unlink()
        made = decide(client, "u")
        client.post("/v1/kill", json={"reason": "drill"})
        assert (refused(client)["status"], refused(client)["code"]) == (423, "killed")
        client.request("DELETE", "/v1/kill", json={"reason": "over"})
        assert decide(client, "u") == made
    assert [account.is_killed for account in killing.states(engine)] == [False]


def test_the_settings_say_from_where_on_it_acts(engine: Engine, root: Path) -> None:
    open_with(engine, deciding(root).sha)
    [unit] = assign_to(engine, CHALLENGER, 1)
    ranging = RISING | {"return_1": 0.08, "adx": 12.0, "volatility_ratio": 2.5}
    for sections, position in (
        ({}, 0.0),
        ({"regime_filter": {"allow_ranging": True}}, 0.5),
        ({"regime_filter": {"adx_threshold": 10.0}}, 0.5),
        ({"regime_filter": {"adx_threshold": 10.0, "volatility_threshold": 3.0}}, 1.0),
        ({"regime_filter": {"enabled": False}}, 1.0),
        (
            {
                "regime_filter": {"allow_ranging": True},
                "model": {"confidence_threshold": 0.7},
            },
            0.0,
        ),
    ):
        with service(engine, settings=settings(root, **sections)) as client:
            action = decide(client, unit.unit_id, features=ranging)["action"]
        assert action["position"] == position, sections


def test_the_guards_share_of_the_assignment_is_taken(engine: Engine, root: Path) -> None:
    open_with(engine, deciding(root).sha)
    [made] = assign_to(engine, CHALLENGER, 1)
    decider = Decider(read(root, made.policy_sha))
    sight = Sight(features=RISING | {"return_1": 0.08}, features_digest=None, holding=Holding())
    moves = {}
    for bump in (0.0, 0.1):
        reduced = replace(made, size_multiplier=0.5, confidence_bump=bump)
        action = action_of(reduced, sight, decider, digest=None, rules=ActingRules())
        assert isinstance(action, Action)
        moves[bump] = (action.move, action.position)
    assert moves == {0.0: (Move.OPEN, 0.5), 0.1: (Move.STAY, 0.0)}


def test_the_first_who_ask_at_once_are_all_answered(engine: Engine, root: Path) -> None:
    open_with(engine, deciding(root).sha)
    units = assign_to(engine, CHALLENGER, 12)
    together = threading.Barrier(len(units))
    with service(engine, settings=settings(root)) as client:

        def ask(unit: str) -> str:
            together.wait(60)
            return str(decide(client, unit)["action"]["move"])

        with ThreadPoolExecutor(len(units)) as threads:
            moves = list(threads.map(ask, [unit.unit_id for unit in units]))
    assert moves == ["open"] * len(units)


def test_a_service_that_starts_loads_its_arms_before_anybody_asks(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = deciding(root).sha
    open_with(engine, sha)
    read = threading.Event()

    def watched(root: Path, policy: PolicySha, *, embeddings: Embeddings) -> Decider | None:
        found = loaded(root, policy, embeddings=embeddings)
        if policy == sha:
            read.set()
        return found

    monkeypatch.setattr(deciders, "loaded", watched)
    with service(engine, settings=settings(root)):
        assert read.wait(60)


def test_an_encoder_is_told_the_bars_before(engine: Engine, root: Path) -> None:
    artifact = embedding_policy(root)
    open_with(engine, artifact.sha)
    [unit] = assign_to(engine, CHALLENGER, 1)
    assigned = row_counts(engine)["assignments"]
    history = {name: [0.25 * bar for bar in range(9)] for name in RISING}
    with service(engine, settings=settings(root)) as client:
        for fields, field in (
            ({}, "history"),
            ({"history": {name: column[:6] for name, column in history.items()}}, "history"),
            ({"history": {**history, "adx": [0.0]}}, "history"),
            ({"history": {"adx": [0.0] * 9}}, "history"),
            ({"history": {**history, "adx": ["1"] * 9}}, "history"),
        ):
            assert refused(client, **fields)["field"].startswith(field)
        found = decide(client, unit.unit_id, history=history)["action"]
    action = Decider(artifact).act(RISING, Holding(), rules=ActingRules(), history=history)
    assert (found["choice"], found["confidence"]) == (
        action.choice.name,
        pytest.approx(action.choice.confidence),
    )
    assert row_counts(engine)["assignments"] == assigned


def test_it_needs_the_scope_of_assignments_and_an_experiment(engine: Engine, root: Path) -> None:
    open_with(engine, deciding(root).sha)
    with service(engine, settings=settings(root), key="owner") as client:
        assert client.post("/v1/experiments/eth/decide", json=body("u")).status_code == 404
        del client.headers["Authorization"]
        assert client.post(DECIDE, json=body("u")).status_code == 401
    assert row_counts(engine)["assignments"] == 0
