"""Alerts over HTTP stop arms: what each is answered, what it does, and what it never does."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest
from alert_histories import LEVELS, UNIT, Event, Oracle, history, lawful
from api_service import post, row_counts, service
from ledger import (
    CHALLENGER,
    NOON,
    arms,
    assign,
    change,
    count,
    open_btc,
    open_eth,
    promote,
    register,
    together,
    traffic,
    wait_until_blocked,
)
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from bandit.core.alert_actions import SETTLES
from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmStatus, Profile
from bandit.service import experiments, killing
from bandit.storage import locks
from bandit.storage.engine import connect, transaction
from config.scopes import KeyScope
from liveops.api.access import ADMIN_SCOPES, digest_of, scope_of
from liveops.api.webhooks import ALERTS_BYTES_MAX, ALERTS_MAX
from liveops.clock import VirtualClock

# Two alerts that began and ended: whole, and with `max_alerts: 1`.
RECORDED = Path(__file__).resolve().parents[1] / "data" / "alertmanager_0_25.json"
HOOK = "/v1/webhooks/alertmanager"
LATER = NOON + timedelta(hours=1)
NO_END = "0001-01-01T00:00:00Z"


def alert(
    action: str | None = "halt",
    *,
    fingerprint: str = "0123456789abcdef",
    starts: datetime = NOON,
    status: str = "firing",
    policy: str = CHALLENGER,
    experiment: str = "btc",
    **labels: str,
) -> dict[str, Any]:
    """An alert as Alertmanager writes it."""
    told = {"alertname": "ChallengerDrawdownHigh", "experiment": experiment, "policy": policy}
    return {
        "status": status,
        "labels": told | ({} if action is None else {"action": action}) | labels,
        "annotations": {"summary": "too far down"},
        "startsAt": starts.isoformat().replace("+00:00", "Z"),
        "endsAt": NO_END,
        "generatorURL": "http://prometheus:9090/graph?g0.expr=dd_challenger_pct",
        "fingerprint": fingerprint,
    }


def payload(*alerts: dict[str, Any], truncated: int = 0, **more: Any) -> dict[str, Any]:
    """What Alertmanager sends."""
    return {
        "receiver": "liveops",
        "status": "firing",
        "alerts": list(alerts),
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": truncated,
        **more,
    }


def results(client: httpx.Client, *alerts: dict[str, Any], **more: Any) -> list[Any]:
    """What each alert of a payload is answered."""
    answer = client.post(HOOK, json=payload(*alerts, **more))
    assert answer.status_code == 200, answer.text
    return [one["result"] for one in answer.json()["results"]]


def status(engine: Engine, policy: str = CHALLENGER, experiment: str = "btc") -> ArmStatus:
    record = experiments.load(engine, experiment)
    return next(arm.place.status for arm in record.arms if arm.place.policy == policy)


def decided(engine: Engine) -> list[tuple[str, str, str]]:
    """Kind, actor and reason of every decision after those that opened experiments."""
    statement = text("SELECT kind, actor, reason FROM decisions WHERE kind <> 'ENTER' ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement)]


def counted(client: httpx.Client) -> dict[str, float]:
    """`liveops_alert_notices_total` by result."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [s for f in families for s in f.samples if s.name == "liveops_alert_notices_total"]
    return {sample.labels["result"]: sample.value for sample in samples}


def test_an_alert_halts_its_arm_once(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(LATER)
    with service(engine, clock=clock) as client:
        first = client.post(HOOK, json=payload(alert()))
        assert first.json() == {
            "results": [
                {
                    "fingerprint": "0123456789abcdef",
                    "status": "firing",
                    "starts_at": NOON.isoformat(),
                    "result": "halted",
                    "before": None,
                }
            ],
            "truncated": 0,
            "halted": [],
        }
        assert traffic(engine) == {"prod": 1_000_000, CHALLENGER: 0}
        [again] = client.post(HOOK, json=payload(alert())).json()["results"]
        assert (again["result"], again["before"]) == ("repeated", "halted")
    reason = f"alert ChallengerDrawdownHigh since {NOON.isoformat()}"
    assert decided(engine) == [("HALT", "alertmanager", reason)]
    with engine.connect() as connection:
        kept = connection.execute(
            text(
                "SELECT n.received_at, n.starts_at, n.status, n.alertname, n.experiment, n.policy,"
                " n.action, n.receiver, n.result, d.kind, d.inputs -> 'alert' ->> 'key',"
                " l.actor, l.action"
                " FROM alert_notices n JOIN decisions d ON d.id = n.decision_id"
                " JOIN audit_log l ON (l.details ->> 'decision')::bigint = d.id"
            )
        ).all()
    told = ("ChallengerDrawdownHigh", "btc", CHALLENGER, "halt", "liveops", "halted")
    by_whom = ("HALT", "local", "alertmanager", "HALT")
    assert kept == [(LATER, NOON, "firing", *told, *by_whom)]


def test_a_throttle_is_followed_by_a_halt_and_not_the_other_way_round(engine: Engine) -> None:
    open_btc(engine)
    weak, strong = alert("throttle", fingerprint="a"), alert("halt", fingerprint="b")
    with service(engine, clock=VirtualClock(LATER)) as client:
        assert results(client, weak, strong, alert("throttle", fingerprint="c")) == [
            "throttled",
            "halted",
            "already",
        ]
    assert [kind for kind, _, _ in decided(engine)] == ["THROTTLE", "HALT"]


def test_resolved_undoes_nothing(engine: Engine) -> None:
    open_btc(engine)
    ended = alert(status="resolved")
    with service(engine, clock=VirtualClock(LATER)) as client:
        # Before its firing, after it, and for an arm that a person halted.
        assert results(client, ended) == ["resolved"]
        assert status(engine) is ArmStatus.ACTIVE
        assert results(client, alert()) == ["halted"]
        assert results(client, ended, alert(fingerprint="b", status="resolved")) == [
            "repeated",
            "resolved",
        ]
    assert status(engine) is ArmStatus.HALTED


def test_who_was_resumed_stays_so_until_an_alert_begins_anew(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        assert results(client, alert()) == ["halted"]
        change(engine, ArmVerb.RESUME, now=NOON + timedelta(minutes=5))
        clock.advance_to(NOON + timedelta(minutes=6))
        # It still holds: by the same rule, and by another that began before the person did.
        late = alert(fingerprint="b", starts=NOON + timedelta(minutes=4))
        assert results(client, alert(), late) == ["repeated", "resumed_since"]
        assert status(engine) is ArmStatus.ACTIVE
        # It begins anew, as rules read the last minutes and forget when Prometheus is restarted.
        anew = alert(starts=NOON + timedelta(minutes=6))
        assert results(client, anew) == ["resumed_since"]
        clock.advance_to(NOON + timedelta(minutes=10))
        # It goes on, and so it is about what has happened since.
        assert results(client, alert(), anew) == ["repeated", "halted"]
    assert [kind for kind, _, _ in decided(engine)] == ["HALT", "RESUME", "HALT"]


def test_a_sender_whose_clock_is_ahead_does_not_undo_a_persons_resume(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    ahead = alert(starts=NOON + timedelta(hours=3))
    with service(engine, clock=clock) as client:
        assert results(client, ahead) == ["halted"]
        change(engine, ArmVerb.RESUME, now=NOON + timedelta(minutes=5))
        clock.advance_to(NOON + timedelta(minutes=6))
        assert results(client, ahead) == ["repeated"]
    assert status(engine) is ArmStatus.ACTIVE


def test_a_notice_that_could_do_nothing_then_does_it_when_it_comes_again(engine: Engine) -> None:
    open_btc(engine, challengers=())
    with service(engine, clock=VirtualClock(NOON)) as client:
        assert results(client, alert()) == ["unknown_arm"]
        register(engine, CHALLENGER, "eee02a74")
        client.post("/v1/experiments/btc/arms", json={"policy": CHALLENGER}).raise_for_status()
        [again] = client.post(HOOK, json=payload(alert())).json()["results"]
    assert (again["result"], again["before"]) == ("halted", "unknown_arm")
    assert status(engine) is ArmStatus.HALTED


def test_what_asks_for_nothing_does_nothing_and_is_kept(engine: Engine) -> None:
    open_btc(engine)
    asked = [
        alert(None, fingerprint="a"),
        alert("resume", fingerprint="b"),
        alert("HALT", fingerprint="c"),
        alert(policy="prod", fingerprint="d"),  # the champion carries what the others give up
        alert(policy="nobody", fingerprint="e"),
        alert(experiment="none", fingerprint="f"),
        alert(policy="", experiment="", fingerprint="g"),
    ]
    with service(engine) as client:
        assert results(client, *asked) == ["no_action"] * 4 + ["unknown_arm"] * 3
        assert counted(client) == {
            **dict.fromkeys(("halted", "throttled", "already", "resumed_since"), 0),
            **dict.fromkeys(("resolved", "repeated", "truncated"), 0),
            "no_action": 4,
            "unknown_arm": 3,
        }
    assert (decided(engine), count(engine, "alert_notices")) == ([], 7)


def test_a_policy_is_named_as_elsewhere_and_an_ambiguous_prefix_names_nobody(
    engine: Engine,
) -> None:
    open_btc(engine, challengers=[("one", "eee02a74"), ("two", "eee11111")])
    with service(engine) as client:
        assert results(client, alert(policy="eee", fingerprint="a")) == ["unknown_arm"]
        assert results(client, alert(policy="eee0", fingerprint="b")) == ["halted"]
    assert (status(engine, "one"), status(engine, "two")) == (ArmStatus.HALTED, ArmStatus.ACTIVE)


def test_nobody_is_stopped_where_an_experiment_only_observes(engine: Engine) -> None:
    open_btc(engine, profile=Profile.OBSERVE)
    with service(engine) as client:
        assert results(client, alert(), truncated=1) == ["no_action"]
    assert decided(engine) == []


def test_an_arm_is_halted_while_its_account_is_killed(engine: Engine) -> None:
    open_btc(engine)
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    with service(engine) as client:
        assert results(client, alert()) == ["halted"]


def test_a_promoted_arm_is_not_stopped_and_a_replaced_one_is_judged_anew(engine: Engine) -> None:
    open_btc(engine)
    with service(engine, clock=VirtualClock(NOON + timedelta(hours=3))) as client:
        promote(engine)  # two hours after noon
        assert results(client, alert()) == ["no_action"]
        # Who was the champion when the alert began is a challenger since.
        assert results(client, alert(policy="prod", fingerprint="b")) == ["resumed_since"]
        since = NOON + timedelta(hours=3)
        assert results(client, alert(policy="prod", fingerprint="b", starts=since)) == ["halted"]


def test_cut_off_alerts_halt_every_challenger_that_nobody_resumed_since(engine: Engine) -> None:
    open_btc(engine, challengers=arms(3))
    open_eth(engine)
    clock = VirtualClock(LATER)
    shown = alert("throttle", policy="arm-00")
    with service(engine, clock=clock) as client:
        change(engine, ArmVerb.HALT, "arm-02", now=NOON)
        change(engine, ArmVerb.RESUME, "arm-02", now=NOON + timedelta(minutes=1))
        answer = client.post(HOOK, json=payload(shown, truncated=7)).json()
        assert [one["result"] for one in answer["results"]] == ["throttled"]
        # The throttled one is halted too, the resumed one is left alone, champions carry the rest.
        halted = [{"experiment": "btc", "policy": name} for name in ("arm-00", "arm-01")]
        assert (answer["truncated"], answer["halted"]) == (7, halted)
        again = client.post(HOOK, json=payload(shown, truncated=7)).json()
        assert (again["halted"], again["results"][0]["result"]) == ([], "repeated")
        assert counted(client)["truncated"] == 14
        # A newer alert beside what is cut off: what is cut off may be as new.
        newer = alert(None, fingerprint="b", starts=LATER)
        answer = client.post(HOOK, json=payload(newer, truncated=1)).json()
        assert answer["halted"] == [{"experiment": "btc", "policy": "arm-02"}]
    reason = "7 alerts were cut off from a payload: one may have been a halt"
    assert ("HALT", "alertmanager", reason) in decided(engine)


def test_a_payload_that_shows_nothing_but_a_cut_halts_whoever_goes_on(engine: Engine) -> None:
    open_btc(engine)
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        for _ in range(2):
            answer = client.post(HOOK, json=payload(truncated=1)).json()
            assert answer["halted"] == [{"experiment": "btc", "policy": CHALLENGER}]
            change(engine, ArmVerb.RESUME, now=clock.now())
            assert client.post(HOOK, json=payload(truncated=1)).json()["halted"] == []
            clock.advance_to(clock.now() + SETTLES)


def test_alerts_over_the_limit_count_as_cut_off(engine: Engine) -> None:
    open_btc(engine, challengers=arms(2))
    many = [alert(None, fingerprint=f"{i:016x}") for i in range(ALERTS_MAX)]
    last = alert("halt", policy="arm-01", fingerprint="f" * 16)
    with service(engine) as client:
        assert results(client, *many[:-1], last) == ["no_action"] * (ALERTS_MAX - 1) + ["halted"]
        assert status(engine, "arm-00") is ArmStatus.ACTIVE
        # The one that says so stands behind the last that is looked at.
        answer = client.post(HOOK, json=payload(*many, alert(policy="arm-00"), alert())).json()
        assert (len(answer["results"]), answer["truncated"]) == (ALERTS_MAX, 2)
        assert answer["halted"] == [{"experiment": "btc", "policy": "arm-00"}]


def test_ten_thousand_alerts_in_one_payload_are_answered(engine: Engine) -> None:
    open_btc(engine)
    few = {"status": "firing", "labels": {"action": "halt"}, "startsAt": "2026-03-01T12:00:00Z"}
    many = [{**few, "fingerprint": f"{i:016x}"} for i in range(10_000)]
    with service(engine) as client:
        answer = client.post(HOOK, json={"version": "4", "alerts": many}).json()
    assert (len(answer["results"]), answer["truncated"]) == (ALERTS_MAX, 9_000)
    assert answer["halted"] == [{"experiment": "btc", "policy": CHALLENGER}]


def key_entry(name: str, *scopes: KeyScope) -> dict[str, Any]:
    return {"name": name, "scopes": [s.value for s in scopes], "sha256": digest_of(name.encode())}


def test_only_a_key_of_the_scope_is_heard(engine: Engine) -> None:
    open_btc(engine)
    keys = [
        key_entry("hook", KeyScope.WEBHOOK),
        key_entry("bot", KeyScope.TRADE, KeyScope.OPERATE, KeyScope.READ, KeyScope.INGEST),
    ]
    with service(engine, keys=keys) as client:
        url = client.base_url.join(HOOK)

        def answer(key: str | None) -> tuple[int, str]:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            got = httpx.post(url, json=payload(alert(), truncated=1), headers=headers)
            return got.status_code, got.json().get("code", "")

        for wrong in (None, "nobody", "hoo", "hook2"):
            assert answer(wrong) == (401, "unauthorized")
        assert answer("bot") == (403, "scope_missing")
        assert (decided(engine), count(engine, "alert_notices")) == ([], 0)
        assert answer("hook") == (200, "")
        # And that key opens nothing else.
        halt = f"/v1/experiments/btc/arms/{CHALLENGER}/resume"
        hook = {"Authorization": "Bearer hook"}
        got = httpx.post(client.base_url.join(halt), json={"reason": "x"}, headers=hook)
        assert got.json()["code"] == "scope_missing"
    with engine.connect() as connection:
        asked = "SELECT inputs -> 'alert' ->> 'key' FROM decisions WHERE kind = 'HALT'"
        assert connection.execute(text(asked)).scalar_one() == "hook"


@pytest.mark.parametrize(
    ("spoilt", "status_code", "code"),
    [
        (b"", 400, "malformed_json"),
        (b'{"version": "4", "alerts": [NaN]}', 400, "malformed_json"),
        (b'{"version": "4", "version": "4", "alerts": []}', 400, "malformed_json"),
        (b"[]", 422, "invalid_input"),
        (b"{}", 422, "invalid_input"),
        (b'{"version": "3", "alerts": []}', 422, "invalid_input"),
        (b'{"version": 4, "alerts": []}', 422, "invalid_input"),
        (b'{"version": "4", "alerts": {}}', 422, "invalid_input"),
        (b'{"version": "4", "alerts": [{}]}', 422, "invalid_input"),
        (b'{"version": "4", "alerts": [], "truncatedAlerts": -1}', 422, "invalid_input"),
        (b'{"version": "4", "alerts": [], "truncatedAlerts": 1.5}', 422, "invalid_input"),
        (b'{"version": "4", "alerts": [], "truncatedAlerts": 1e300}', 422, "invalid_input"),
    ],
)
def test_what_is_no_payload_is_refused(
    engine: Engine, spoilt: bytes, status_code: int, code: str
) -> None:
    open_btc(engine)
    before = row_counts(engine)
    with service(engine) as client:
        answer = post(client, HOOK, spoilt)
    assert (answer.status_code, answer.json()["code"]) == (status_code, code)
    assert (row_counts(engine), count(engine, "alert_notices")) == (before, 0)


@pytest.mark.parametrize(
    "told",
    [
        {"startsAt": "yesterday"},
        {"startsAt": NO_END},
        {"startsAt": "2026-03-01T12:00:00"},
        {"startsAt": "2026-03-01T12:00:00.1234567890Z"},
        {"status": "pending"},
        {"fingerprint": "'; DROP TABLE arms; --"},
        {"fingerprint": "f" * 65},
        {"labels": {"action": 1}},
        {"labels": ["halt"]},
    ],
)
def test_one_alert_at_fault_refuses_its_payload(engine: Engine, told: dict[str, Any]) -> None:
    open_btc(engine)
    with service(engine) as client:
        answer = client.post(HOOK, json=payload(alert(), alert() | told))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert (decided(engine), count(engine, "alert_notices")) == ([], 0)


def test_lone_surrogates_and_oversized_bodies_are_refused(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        lone = json.dumps(payload(alert(note="@"))).replace("@", r"\ud800").encode()
        assert post(client, HOOK, lone).json()["code"] == "malformed_json"
        large = json.dumps(payload(alert(note="x" * 10_000_000))).encode()
        assert post(client, HOOK, large).json()["code"] == "body_too_large"
        whole = json.dumps(payload(alert(policy="x" * (ALERTS_BYTES_MAX - 2_000)))).encode()
        [answer] = post(client, HOOK, whole).json()["results"]
    assert (answer["result"], count(engine, "alert_notices")) == ("unknown_arm", 1)


def test_hostile_labels_reach_no_line_of_the_log_no_metric_and_no_other_arm(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    open_btc(engine)
    hostile = "x'; DROP TABLE arms; --\r\nINFO forged \x1b[31m\u2028\u202e{}%s" + "y" * 300
    with service(engine) as client, caplog.at_level(logging.INFO):
        sent = [
            alert(policy=hostile, fingerprint="a"),
            alert(experiment=hostile, fingerprint="b"),
            alert(hostile, fingerprint="c"),
            alert(fingerprint="d", alertname=hostile),
        ]
        assert results(client, *sent, receiver=hostile) == [
            "unknown_arm",
            "unknown_arm",
            "no_action",
            "halted",
        ]
        scraped = client.get("/metrics").text
    assert "DROP TABLE" not in scraped
    [told] = [vars(r)["alertname"] for r in caplog.records if "by an alert" in r.message]
    shown = "x'; DROP TABLE arms; --��INFO forged �[31m��{}%s"
    assert told == (shown + "y" * 300)[:200]
    [(_, _, reason)] = decided(engine)
    assert reason == f"alert {told} since {NOON.isoformat()}"
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT policy FROM alert_notices WHERE fingerprint = 'a'"))
        assert kept.scalar_one() == told


def test_what_alertmanager_0_25_sent_is_understood(engine: Engine) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    with service(engine, clock=VirtualClock(LATER)) as client:
        open_btc(engine, challengers=arms(3))

        def heard(name: str) -> tuple[list[str], list[str]]:
            answer = client.post(HOOK, json=recorded[name]).json()
            told = [one["result"] for one in answer["results"]]
            return told, [arm["policy"] for arm in answer["halted"]]

        # Of two alerts one was cut off: who is not named is halted with the others.
        assert heard("firing_cut") == (["halted"], ["arm-01", "arm-02"])
        assert heard("firing_whole") == (["repeated", "already"], [])
        assert heard("resolved_whole") == (["resolved", "resolved"], [])
        assert heard("resolved_cut") == (["repeated"], [])


def test_keys_of_newer_alertmanagers_and_times_in_nanoseconds_are_read(engine: Engine) -> None:
    open_btc(engine)
    newer = alert() | {"startsAt": "2026-03-01T13:00:00.123456789+01:00", "silenceURL": "x"}
    with service(engine, clock=VirtualClock(LATER)) as client:
        sent = payload(newer, notification_reason="new", routeLabels={"a": "b"})
        [answer] = client.post(HOOK, json=sent).json()["results"]
    moment = NOON + timedelta(microseconds=123456)
    assert (answer["result"], answer["starts_at"]) == ("halted", moment.isoformat())


def test_the_admin_listener_hears_alerts_too() -> None:
    assert scope_of("POST", HOOK) in ADMIN_SCOPES


def test_a_ledger_that_is_away_lets_alertmanager_send_again() -> None:
    with service(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")) as client:
        answer = client.post(HOOK, json=payload(alert()))
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
    assert answer.headers["Retry-After"] == "1"


def test_two_senders_at_once_stop_an_arm_once(engine: Engine) -> None:
    open_btc(engine)
    sent = [alert(fingerprint=f"{i}") for i in range(3)]
    with service(engine, clock=VirtualClock(LATER)) as client:

        def send(*alerts: dict[str, Any]) -> Any:
            return lambda: httpx.post(client.base_url.join(HOOK), json=payload(*alerts)).json()

        for _ in range(5):
            answers = together(*(send(*sent), send(*reversed(sent))) * 3)
            assert all(not isinstance(answer, Exception) for answer in answers)
    assert [kind for kind, _, _ in decided(engine)] == ["HALT"]
    assert count(engine, "alert_notices") == 3


def test_after_the_answer_no_assignment_to_the_arm_commits(engine: Engine) -> None:
    record = open_btc(engine)
    other = connect(engine.url.render_as_string(hide_password=False))
    with service(engine) as client, ThreadPoolExecutor(1) as pool:
        with transaction(other) as batch:
            # A batch is under way: the halt waits for it, and is not answered before.
            locks.gate_shared(batch, record.id)
            sent = pool.submit(results, client, alert())
            wait_until_blocked(engine, sent)
            assert status(engine) is ArmStatus.ACTIVE
        assert sent.result() == ["halted"]
    other.dispose()
    assert {made.policy for made in assign(engine, [f"u{i}" for i in range(200)])} == {"prod"}


def test_each_experiment_has_its_own_arms(engine: Engine) -> None:
    open_btc(engine)
    open_eth(engine)
    with service(engine) as client:
        client.post("/v1/experiments/eth/arms", json={"policy": CHALLENGER}).raise_for_status()
        assert results(client, alert(experiment="eth")) == ["halted"]
    assert status(engine) is ArmStatus.ACTIVE
    assert status(engine, experiment="eth") is ArmStatus.HALTED


def live(engine: Engine, client: httpx.Client, clock: VirtualClock, events: Sequence[Event]) -> int:
    """Let events happen to `btc` over HTTP; how many went otherwise than the oracle says.

    Alerts of one second come in one payload.
    """
    oracle, began, wrong = Oracle(), clock.now(), 0
    policies = {"known": CHALLENGER, "champion": "prod", "unknown": "nobody"}
    for (at, kind), group in groupby(events, key=lambda event: (event.at, event.kind)):
        together = list(group)
        clock.advance_to(began + at * UNIT)
        expected = [oracle.see(event) for event in together]
        if kind == "notice":
            told = [
                alert(
                    event.action,
                    fingerprint=event.fingerprint,
                    starts=began + event.starts * UNIT,
                    status=event.status,
                    policy=policies[event.arm],
                )
                for event in together
            ]
            wrong += results(client, *told) != expected
        else:
            for _ in together:
                change(engine, ArmVerb(kind), now=clock.now())
        wrong += LEVELS[status(engine).value] != oracle.level
    clock.advance_to(clock.now() + timedelta(hours=1))
    if oracle.level:
        change(engine, ArmVerb.RESUME, now=clock.now())
        clock.advance_to(clock.now() + timedelta(hours=1))
    return wrong


def live_through(engine: Engine, lives: int) -> tuple[int, int]:
    rng, wrong, events = random.Random(lives), 0, 0  # noqa: S311 - a seeded life
    clock = VirtualClock(NOON)
    open_btc(engine)
    # Not the client that holds each answer against OpenAPI: these are thousands.
    with service(engine, clock=clock) as checked, httpx.Client(base_url=checked.base_url) as client:
        for number in range(lives):
            happened = lawful(history(rng, name=f"f{number}x", step=10))
            wrong += live(engine, client, clock, happened)
            events += len(happened)
    return wrong, events


def test_two_hundred_lives_in_the_ledger_go_as_the_oracle_says(engine: Engine) -> None:
    wrong, events = live_through(engine, 200)
    assert wrong == 0
    assert events > 2_000


@pytest.mark.slow
def test_two_thousand_lives_in_the_ledger_go_as_the_oracle_says(engine: Engine) -> None:
    assert live_through(engine, 2_000)[0] == 0
