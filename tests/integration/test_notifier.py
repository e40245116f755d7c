"""The notifier: everything that matters is told once, whatever fails, and nothing waits for it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from api_service import application, service
from drift_runs import a_check, a_run
from guarded_ledger import open_wide, pause
from ledger import CHALLENGER, NOON, assign, change, open_btc, promote, roll_back
from receivers import WebReceiver, web_receiver
from sqlalchemy import Engine, text
from vitals import beat
from waiting import until

from bandit.core.kill_switch import KillCause
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import Verdict
from bandit.core.notices import Delivery, DeliveryState, NoticeKind
from bandit.service import auditing, drift, health, killing, noticing, performance_guarding
from liveops import cli
from liveops.background import Turn
from liveops.breakers import Breakers
from liveops.clock import VirtualClock
from liveops.notifier import Notifier, Sender, channels_in_force, notifying

HOUR = timedelta(hours=1)
REPOSITORY = Path(__file__).parents[2]


class Desk:
    """A replica that tells people, driven by hand under a clock that is moved by hand."""

    made: ClassVar[list[Desk]] = []

    def __init__(self, engine: Engine, *, clock: VirtualClock | None = None, **alerts: Any) -> None:
        self.clock = clock or VirtualClock(NOON)
        self.seconds = 0.0
        self.app = application(
            engine,
            clock=self.clock,
            breakers=Breakers(clock=lambda: self.seconds),
            settings={"operations": {"alerts": {"enabled": True, **alerts}}},
        )
        self.channels = channels_in_force(self.app)
        self.notifier = Notifier(self.app, self.channels)
        self.senders = [Sender(self.app, self.notifier, each) for each in self.channels]
        self.turn = Turn("nothing is sent")
        self.made.append(self)

    def look(self, *, after: timedelta = timedelta(0)) -> None:
        """Let time pass; seal, make notices, and send what is due."""
        self.clock.advance_to(self.clock.now() + after)
        self.seconds += after.total_seconds()
        auditing.seal(self.app.engine, now=self.clock.now())
        self.notifier.look()
        for sender in self.senders:
            sender.look(self.turn)

    def kill(self, number: int = 1) -> None:
        """Kill and release the account, which are two notices each time."""
        for _ in range(number):
            told: dict[str, Any] = {"now": self.clock.now(), "actor": "test", "reason": "drill"}
            killing.kill(self.app.engine, None, cause=KillCause.HAND, **told)
            killing.release(self.app.engine, None, **told)

    def of(self, channel: str) -> list[Delivery]:
        found = [d for r in noticing.newest(self.app.engine, most=1000) for d in r.deliveries]
        return [d for d in reversed(found) if d.channel == channel]

    def states(self, channel: str) -> list[str]:
        return [delivery.state.value for delivery in self.of(channel)]


@pytest.fixture
def receiver() -> Iterator[WebReceiver]:
    with web_receiver() as found:
        yield found


@pytest.fixture(autouse=True)
def desks_that_leave(request: pytest.FixtureRequest) -> Iterator[None]:
    """No lease outlives its test."""
    request.getfixturevalue("engine")  # which is to be there still
    yield
    while Desk.made:
        Desk.made.pop().notifier.leave()


@pytest.fixture
def desk(engine: Engine, receiver: WebReceiver) -> Desk:
    """One webhook, of everything but health, that begins at the head of an open experiment."""
    open_btc(engine)
    made = Desk(engine, webhook_url=receiver.url, alert_on_health_issues=False)
    made.look()
    return made


def kinds(receiver: WebReceiver) -> list[str]:
    return [body["kind"] for body in receiver.bodies]


# What is told


def test_the_first_start_tells_nothing_of_what_was_before(
    engine: Engine, receiver: WebReceiver
) -> None:
    open_btc(engine)
    for verb in (ArmVerb.THROTTLE, ArmVerb.HALT):
        change(engine, verb)
    desk = Desk(engine, webhook_url=receiver.url)
    desk.kill(3)
    desk.look()
    desk.look(after=HOUR)
    assert receiver.posts == []
    assert noticing.newest(engine) == []


def test_what_is_audited_is_told_in_its_order_and_once(
    engine: Engine, desk: Desk, receiver: WebReceiver
) -> None:
    assign(engine, ["nothing", "of", "note"])
    for verb in (ArmVerb.THROTTLE, ArmVerb.HALT, ArmVerb.RESUME):
        change(engine, verb)
    promote(engine)
    roll_back(engine)
    desk.kill()
    drift.record(engine, a_run(a_check(verdict=Verdict.FAIL)), now=NOON, actor="test")
    desk.look()
    desk.look(after=HOUR)
    assert kinds(receiver) == [
        "ARM_THROTTLED",
        "ARM_HALTED",
        "ARM_RESUMED",
        "PROMOTION",
        "PROMOTION",
        "KILL_SWITCH",
        "KILL_SWITCH",
        "DRIFT",
    ]
    assert [body["severity"] for body in receiver.bodies] == [
        *("warning", "critical", "info", "info", "warning", "critical", "info", "warning")
    ]
    halted = receiver.bodies[1]
    assert halted["title"] == f"{CHALLENGER} in btc is halted"
    assert (halted["text"], halted["incident"]) == ("drill", f"arm:btc/{CHALLENGER}")
    assert halted["fields"] == {"experiment": "btc", "policy": CHALLENGER, "by": "test"}
    assert receiver.titles()[3] == f"{CHALLENGER} is the champion of btc"
    assert receiver.titles()[4] == "prod is the champion of btc again"
    assert len({body["key"] for body in receiver.bodies}) == 8
    assert set(desk.states("webhook") + desk.states("log")) == {"sent"}


def test_changes_of_the_performance_guard_are_told(engine: Engine, receiver: WebReceiver) -> None:
    open_wide(engine)
    desk = Desk(engine, webhook_url=receiver.url, alert_on_health_issues=False)
    desk.look()
    pause(engine)
    told: dict[str, Any] = {"now": desk.clock.now(), "actor": "test", "reason": "looked"}
    performance_guarding.reset(engine, account="usd", **told)
    performance_guarding.reset(engine, account="usd", **told)  # nothing was wrong: no news
    desk.look()
    assert sorted(kinds(receiver)) == [
        "PERFORMANCE_GUARD_PAUSED",
        "PERFORMANCE_GUARD_PAUSED",
        "PERFORMANCE_GUARD_RECOVERED",
    ]
    [ended] = [body for body in receiver.bodies if body["resolves"]]
    assert ended["incident"] == "guard:account usd"


def test_each_change_of_the_level_of_health_is_told(engine: Engine, receiver: WebReceiver) -> None:
    open_btc(engine)
    desk = Desk(engine, webhook_url=receiver.url)

    def hear(*, running: bool) -> None:
        told = beat(sent_at=desk.clock.now(), running=running)
        health.hear(engine, told, now=desk.clock.now(), window=HOUR)

    hear(running=True)
    desk.look()
    assert receiver.posts == []
    desk.clock.advance_to(NOON + HOUR)
    hear(running=False)
    desk.look()
    desk.look(after=timedelta(seconds=5))
    [fallen] = receiver.bodies
    assert (fallen["kind"], fallen["severity"]) == ("HEALTH_ISSUE", "critical")
    assert fallen["title"] == "Health is UNHEALTHY, was HEALTHY"
    assert "says" not in fallen["title"]
    assert "bot alpha said at" in fallen["text"]
    desk.notifier.leave()

    # Another replica knows what was told.
    other = Desk(engine, clock=desk.clock, webhook_url=receiver.url)
    other.look()
    assert len(receiver.posts) == 1
    hear(running=True)
    other.look(after=timedelta(seconds=5))
    assert receiver.titles()[1:] == ["Health is HEALTHY, was UNHEALTHY"]
    # The log is told by every replica's status file instead.
    assert other.states("log") == []


def test_a_kind_that_is_switched_off_is_not_told(engine: Engine, receiver: WebReceiver) -> None:
    open_btc(engine)
    alerts = {"alert_on_health_issues": False, "alert_on_kill_switch": False}
    desk = Desk(engine, webhook_url=receiver.url, **alerts)
    desk.look()
    desk.kill()
    change(engine, ArmVerb.HALT)
    desk.look()
    assert kinds(receiver) == ["ARM_HALTED"]
    assert len(desk.of("log")) == 3


# What fails


def test_failures_are_repeated_later_and_later_and_given_up_after_a_day(
    engine: Engine, desk: Desk, receiver: WebReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [(500, {})] * 10_000
    change(engine, ArmVerb.HALT)
    desk.look()
    seen = []
    while desk.states("webhook") == ["pending"]:
        [waiting] = desk.of("webhook")
        assert waiting.error == "answered 500"
        pause = waiting.next_at - desk.clock.now()
        # Neither the pause nor the breaker lets anything out before.
        desk.look(after=pause - timedelta(seconds=1))
        assert desk.of("webhook") == [waiting]
        seen.append(pause.total_seconds())
        desk.look(after=timedelta(seconds=61))
    assert seen[:3] == [5.0, 10.0, 20.0]
    assert max(seen) == 900.0
    assert desk.clock.now() - NOON >= timedelta(hours=24)
    assert desk.states("webhook") == ["given_up"]
    [record] = [r for r in caplog.records if r.getMessage() == "notice given up"]
    assert vars(record)["why"] == "answered 500"
    made = len(receiver.posts)
    desk.look(after=HOUR)
    assert len(receiver.posts) == made


def test_a_channel_that_asks_for_a_pause_gets_it(
    engine: Engine, desk: Desk, receiver: WebReceiver
) -> None:
    receiver.answers = [(429, {"Retry-After": "120"})]
    desk.kill()
    desk.look()
    assert len(receiver.posts) == 1  # nor is the second notice tried meanwhile
    desk.look(after=timedelta(seconds=119))
    assert len(receiver.posts) == 1
    desk.look(after=timedelta(seconds=1))
    assert receiver.titles()[1:] == ["Account usd is killed", "Account usd is released"]


def test_a_notice_that_is_refused_is_given_up_and_keeps_nobody(
    engine: Engine, desk: Desk, receiver: WebReceiver
) -> None:
    receiver.answers = [(400, {})]
    desk.kill()
    desk.look()
    assert desk.states("webhook") == ["given_up", "sent"]
    assert desk.app.breakers.not_closed() == ()


def test_the_breaker_opens_and_a_reset_lets_notices_out(
    engine: Engine, desk: Desk, receiver: WebReceiver
) -> None:
    receiver.answers = [(500, {})] * 3
    desk.kill(2)
    desk.look()
    assert len(receiver.posts) == 3
    assert desk.app.breakers.not_closed() == ("notify.webhook",)
    [*_, last] = desk.of("webhook")
    assert last.attempts == 0  # what was not tried is not counted
    desk.look(after=timedelta(seconds=59))
    assert len(receiver.posts) == 3
    desk.app.breakers.reset("notify.webhook")
    desk.look()
    assert len(receiver.posts) == 7
    assert set(desk.states("webhook")) == {"sent"}


def test_a_dead_channel_does_not_keep_another(engine: Engine, receiver: WebReceiver) -> None:
    open_btc(engine)
    alerts = {
        "webhook_url": receiver.url,
        "discord_webhook_url": "http://127.0.0.1:1/dead",
        "email_smtp_server": "127.0.0.1:1",
        "email_recipients": ["ann@example.com"],
        "alert_on_health_issues": False,
    }
    desk = Desk(engine, **alerts)
    desk.look()
    desk.kill(2)
    desk.look()
    assert set(desk.states("webhook")) == {"sent"}
    assert {d.error for d in desk.of("discord")[:3]} == {"no answer: ConnectError"}
    assert {d.error for d in desk.of("email")[:3]} == {"no mail: ConnectionRefusedError"}
    assert desk.app.breakers.not_closed() == ("notify.discord", "notify.email")


def test_what_waits_for_a_channel_that_is_gone_is_given_up(
    engine: Engine, receiver: WebReceiver
) -> None:
    open_btc(engine)
    desk = Desk(engine, discord_webhook_url="http://127.0.0.1:1/dead")
    desk.look()
    desk.kill()
    desk.look()
    desk.notifier.leave()
    other = Desk(engine, webhook_url=receiver.url)
    other.look()
    assert set(other.states("discord")) == {"given_up"}


# Too many


def test_more_than_an_hour_may_have_become_one(engine: Engine, receiver: WebReceiver) -> None:
    open_btc(engine)
    desk = Desk(engine, webhook_url=receiver.url, per_hour=3, alert_on_health_issues=False)
    desk.look()
    desk.kill(6)
    desk.look()
    # Three critical and three others; critical ones have a ration of their own.
    assert [body["severity"] for body in receiver.bodies].count("critical") == 3
    assert len(receiver.posts) == 6
    desk.look(after=timedelta(minutes=59))
    assert len(receiver.posts) == 6
    desk.look(after=timedelta(minutes=1))
    desk.look()
    assert receiver.titles()[6:] == ["3 more notices", "3 more notices"]
    assert {body["severity"] for body in receiver.bodies[6:]} == {"critical", "info"}
    assert receiver.bodies[6]["text"] == "KILL_SWITCH: 3. liveops notify list shows them."
    assert desk.states("webhook").count("digested") == 6
    # The log has every one of them.
    assert desk.states("log").count("sent") == 12


def test_a_single_one_that_was_held_is_sent_itself(engine: Engine, receiver: WebReceiver) -> None:
    open_btc(engine)
    desk = Desk(engine, webhook_url=receiver.url, per_hour=1, alert_on_health_issues=False)
    desk.look()
    for verb in (ArmVerb.HALT, ArmVerb.RESUME, ArmVerb.THROTTLE):
        change(engine, verb)
    desk.look()
    assert kinds(receiver) == ["ARM_HALTED", "ARM_RESUMED"]
    desk.look(after=HOUR)
    desk.look()
    assert kinds(receiver)[2:] == ["ARM_THROTTLED"]


def test_a_pager_is_told_every_end_of_what_it_was_told(
    engine: Engine, receiver: WebReceiver
) -> None:
    open_btc(engine)
    alerts = {"pagerduty_routing_key": "k", "pagerduty_api_base": receiver.url, "per_hour": 2}
    desk = Desk(engine, alert_on_health_issues=False, **alerts)
    desk.look()
    desk.kill(4)
    desk.look()
    said = [body["event_action"] for body in receiver.bodies]
    assert (said.count("trigger"), said.count("resolve")) == (2, 4)


# Replicas and restarts


def test_of_two_replicas_one_tells_and_the_other_goes_on(
    engine: Engine, receiver: WebReceiver
) -> None:
    open_btc(engine)
    alerts: dict[str, Any] = {"webhook_url": receiver.url, "alert_on_health_issues": False}
    one = Desk(engine, **alerts)
    two = Desk(engine, clock=one.clock, **alerts)
    for desk in (one, two):
        desk.look()
    assert (one.notifier.leads, two.notifier.leads) == (True, False)
    one.kill()
    for desk in (two, one, two):
        desk.look()
    assert len(receiver.posts) == 2
    one.notifier.leave()
    one.kill()
    until(lambda: two.notifier.leads, two.look)
    for desk in (one, two):
        desk.look()
    assert (one.notifier.leads, two.notifier.leads) == (False, True)
    assert len(receiver.posts) == 4


def test_two_that_send_at_once_send_once(engine: Engine, desk: Desk) -> None:
    desk.kill()
    auditing.seal(engine, now=NOON)
    desk.notifier.look()
    [first, _] = noticing.due(engine, "webhook", now=NOON)
    assert [noticing.claim(engine, first, now=NOON) for _ in range(2)] == [True, False]


def test_a_restart_loses_nothing(engine: Engine, desk: Desk, receiver: WebReceiver) -> None:
    desk.kill()
    auditing.seal(engine, now=NOON)
    desk.notifier.look()  # stored, not sent
    desk.notifier.leave()
    desk.kill()  # sealed while nobody looks
    auditing.seal(engine, now=NOON)
    alerts: dict[str, Any] = {"webhook_url": receiver.url, "alert_on_health_issues": False}
    other = Desk(engine, clock=desk.clock, **alerts)
    other.look()
    assert receiver.titles() == ["Account usd is killed", "Account usd is released"] * 2


KILLED_WHILE_SENDING = """
import sys
from test_notifier import Desk
from bandit.storage.engine import connect

url, webhook = sys.argv[1:]
desk = Desk(connect(url), webhook_url=webhook, alert_on_health_issues=False)
desk.look()
"""


def test_killed_between_sending_and_writing_it_down_sends_once_more(
    engine: Engine, database_url: str, desk: Desk, receiver: WebReceiver
) -> None:
    desk.notifier.leave()
    change(engine, ArmVerb.HALT)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_SENDING, database_url, receiver.url],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(["tests", "tests/integration", *sys.path]),
        },
        cwd=REPOSITORY,
    )
    receiver.before = lambda: process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=120) == -signal.SIGKILL
    receiver.before = lambda: None
    assert kinds(receiver) == ["ARM_HALTED"]
    until(lambda: desk.notifier.leads, desk.notifier.look)  # its session ends with it
    desk.look()
    assert len(receiver.posts) == 1  # somebody may still be sending it
    desk.look(after=timedelta(seconds=5))
    desk.look(after=HOUR)
    first, again = receiver.bodies
    assert first == again
    assert desk.states("webhook") == ["sent"]


def test_a_restored_cursor_does_not_tell_twice(engine: Engine, desk: Desk) -> None:
    desk.kill()
    desk.look()
    with engine.begin() as connection:
        connection.execute(text("UPDATE notifier_state SET read_to = 0"))
    desk.look()
    told = [r.notice.kind for r in noticing.newest(engine)]
    assert told.count(NoticeKind.KILL_SWITCH) == 2


# Beside trading


def test_trading_does_not_wait_for_a_receiver_that_hangs(
    engine: Engine, receiver: WebReceiver
) -> None:
    open_btc(engine)
    entered, over = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        over.wait()

    receiver.before = hang
    alerts = {"enabled": True, "webhook_url": receiver.url, "alert_on_health_issues": False}
    settings = {"operations": {"alerts": alerts}}
    app = application(engine, settings=settings)
    state = text("SELECT count(*) FROM notifier_state")

    def has_begun() -> bool:
        with engine.connect() as connection:
            return bool(connection.execute(state).scalar_one())

    with service(engine) as client, notifying(app):
        until(has_begun)
        change(engine, ArmVerb.HALT)
        auditing.seal(engine, now=NOON)
        assert entered.wait(60)
        unit = {"unit_id": "u", "instrument": "BTCUSD"}
        assert client.post("/v1/experiments/btc/assignments", json=unit).status_code == 200
        change(engine, ArmVerb.RESUME)
        assert client.get("/v1/breakers").status_code == 200
        # The log, a channel beside, goes on.
        auditing.seal(engine, now=NOON)
        until(lambda: logged(engine) == 2)
        over.set()


def logged(engine: Engine) -> int:
    found = [d for r in noticing.newest(engine) for d in r.deliveries if d.channel == "log"]
    return sum(d.state is DeliveryState.SENT for d in found)


# What is shown


def test_secrets_are_seen_nowhere(
    engine: Engine, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-of-a-webhook"
    caplog.set_level(logging.INFO)
    open_btc(engine)
    dead = f"http://127.0.0.1:1/{canary}"
    desk = Desk(engine, discord_webhook_url=dead, webhook_url=dead, webhook_secret=canary)
    desk.look()
    desk.kill(2)
    for _ in range(4):
        desk.look(after=timedelta(minutes=2))
    with engine.connect() as connection:
        stored: Sequence[Any] = [
            connection.execute(text(f"SELECT t::text FROM {table} t")).all()
            for table in ("notices", "notice_deliveries", "audit_log")
        ]
    seen = f"{stored}{caplog.text}{capsys.readouterr()}{desk.channels}{desk.app.settings}"
    assert "no answer: ConnectError" in seen
    assert canary not in seen


def test_notices_are_listed_and_measured(
    engine: Engine,
    database_url: str,
    desk: Desk,
    receiver: WebReceiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver.answers = [(204, {}), (500, {})]
    desk.kill()
    desk.look()
    desk.clock.advance_to(NOON + timedelta(seconds=90))
    with service(engine, clock=desk.clock) as client:
        shown = client.get("/metrics").text
    for line in (
        'liveops_notices_total{channel="webhook",state="sent"} 1.0',
        'liveops_notices_total{channel="webhook",state="given_up"} 0.0',
        'liveops_notices_total{channel="log",state="sent"} 2.0',
        'liveops_notices_waiting{channel="webhook"} 1.0',
        'liveops_notices_oldest_waiting_seconds{channel="webhook"} 90.0',
        'liveops_notices_oldest_waiting_seconds{channel="log"} 0.0',
    ):
        assert line in shown
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    assert cli.exit_code(cli.app, ["notify", "list"]) == 0
    assert capsys.readouterr().out == (
        "2026-03-01 12:00:00 KILL_SWITCH: Account usd is released\n"
        "  log sent\n  webhook pending: answered 500\n"
        "2026-03-01 12:00:00 KILL_SWITCH: Account usd is killed\n"
        "  log sent\n  webhook sent\n"
    )
    assert cli.exit_code(cli.app, ["notify", "list", "--json", "--newest", "1"]) == 0
    assert '"title": "Account usd is released"' in capsys.readouterr().out


def test_what_was_sent_stays_sent(engine: Engine, desk: Desk) -> None:
    desk.kill()
    desk.look()
    refused = pytest.raises(Exception, match="a notice on log is sent: it stays so")
    with refused, engine.begin() as connection:
        connection.execute(text("UPDATE notice_deliveries SET state = 'pending'"))


def test_a_demo_tells_nobody(engine: Engine, receiver: WebReceiver) -> None:
    from dataclasses import replace

    desk = Desk(engine, webhook_url=receiver.url)
    found = channels_in_force(replace(desk.app, demo=True))
    assert [each.recipient.name for each in found] == ["log"]
