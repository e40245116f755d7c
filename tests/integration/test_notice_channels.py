"""Each channel against a real receiver: what it is sent, and what failing looks like."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger import NOON
from receivers import PASSWORD, WebReceiver, certificate, mail_receiver, web_receiver

from alerts.channels import channel as channels
from alerts.channels import web
from alerts.channels.channel import ChannelFailed, ChannelRefused
from alerts.channels.mail import MailChannel, MailSecurity
from bandit.core.notices import Notice, NoticeKind, Severity
from config.alerts import Alerts
from liveops import cli
from liveops.notice_channels import channels_of

SECRET = "canary-of-a-channel"  # noqa: S105 - it must be seen nowhere
KILLED = Notice(
    kind=NoticeKind.KILL_SWITCH,
    severity=Severity.CRITICAL,
    title="Account usd is killed",
    text="daily loss <3 %> & more",
    at=NOON,
    incident="kill:usd",
    fields=(("cause", "daily_loss"), ("by", "rule:loss_limit")),
)
RELEASED = Notice(
    kind=NoticeKind.KILL_SWITCH,
    severity=Severity.INFO,
    title="Account usd is released",
    text="looked into it",
    at=NOON,
    incident="kill:usd",
    resolves=True,
)


@pytest.fixture
def receiver() -> Iterator[WebReceiver]:
    with web_receiver() as found:
        yield found


def test_discord_shows_an_embed_in_the_colour_of_the_severity(receiver: WebReceiver) -> None:
    web.discord(f"{receiver.url}/api/webhooks/1/{SECRET}").send(KILLED, key="notice-7")
    [(path, headers, body)] = receiver.posts
    assert path == f"/api/webhooks/1/{SECRET}"
    assert headers["Content-Type"] == "application/json"
    assert body == {
        "embeds": [
            {
                "title": "KILL_SWITCH: Account usd is killed",
                "description": "daily loss <3 %> & more",
                "color": 0xC0392B,
                "timestamp": "2026-03-01T12:00:00+00:00",
                "fields": [
                    {"name": "severity", "value": "critical", "inline": True},
                    {"name": "cause", "value": "daily_loss", "inline": True},
                    {"name": "by", "value": "rule:loss_limit", "inline": True},
                ],
                "footer": {"text": "liveops-bandit notice-7"},
            }
        ],
        "allowed_mentions": {"parse": []},
    }


def test_slack_shows_blocks_of_plain_text(receiver: WebReceiver) -> None:
    web.slack(f"{receiver.url}/services/{SECRET}").send(KILLED, key="notice-7")
    [body] = receiver.bodies
    assert body["text"] == "KILL_SWITCH: Account usd is killed"
    [attachment] = body["attachments"]
    assert attachment["color"] == "#c0392b"
    assert attachment["blocks"] == [
        {"type": "header", "text": plain("KILL_SWITCH: Account usd is killed")},
        {"type": "section", "text": plain("daily loss <3 %> & more")},
        {
            "type": "section",
            "fields": [plain("cause: daily_loss"), plain("by: rule:loss_limit")],
        },
        {
            "type": "context",
            "elements": [plain("critical · 2026-03-01T12:00:00+00:00 · notice-7")],
        },
    ]


def plain(text: str) -> dict[str, str]:
    return {"type": "plain_text", "text": text}


def test_telegram_gets_a_message_without_markup(receiver: WebReceiver) -> None:
    web.telegram(f"12:{SECRET}", "-100", base=f"{receiver.url}/").send(KILLED, key="notice-7")
    [(path, _, body)] = receiver.posts
    assert path == f"/bot12:{SECRET}/sendMessage"
    assert body == {
        "chat_id": "-100",
        "text": "\N{LARGE RED CIRCLE} KILL_SWITCH: Account usd is killed\n"
        "daily loss <3 %> & more\ncause: daily_loss\nby: rule:loss_limit\n"
        "2026-03-01T12:00:00+00:00",
        "link_preview_options": {"is_disabled": True},
    }


def test_pagerduty_opens_an_incident_and_closes_the_same(receiver: WebReceiver) -> None:
    pager = web.pagerduty(SECRET, base=receiver.url)
    pager.send(KILLED, key="notice-7")
    pager.send(RELEASED, key="notice-8")
    assert {path for path, _, _ in receiver.posts} == {"/v2/enqueue"}
    assert receiver.bodies == [
        {
            "routing_key": SECRET,
            "event_action": "trigger",
            "dedup_key": "liveops-bandit:kill:usd",
            "payload": {
                "summary": "KILL_SWITCH: Account usd is killed",
                "source": "liveops-bandit",
                "severity": "critical",
                "timestamp": "2026-03-01T12:00:00+00:00",
                "class": "KILL_SWITCH",
                "custom_details": {
                    "text": "daily loss <3 %> & more",
                    "cause": "daily_loss",
                    "by": "rule:loss_limit",
                },
            },
        },
        {
            "routing_key": SECRET,
            "event_action": "resolve",
            "dedup_key": "liveops-bandit:kill:usd",
        },
    ]


def test_the_webhook_gets_everything_with_a_key_that_stays(receiver: WebReceiver) -> None:
    web.webhook(receiver.url, secret=SECRET).send(KILLED, key="notice-7")
    web.webhook(receiver.url).send(KILLED, key="notice-7")
    (_, with_secret, body), (_, without, again) = receiver.posts
    assert with_secret["Authorization"] == f"Bearer {SECRET}"
    assert "Authorization" not in without
    assert body == again
    assert body == {
        "key": "notice-7",
        "kind": "KILL_SWITCH",
        "severity": "critical",
        "title": "Account usd is killed",
        "text": "daily loss <3 %> & more",
        "at": "2026-03-01T12:00:00+00:00",
        "incident": "kill:usd",
        "resolves": False,
        "fields": {"cause": "daily_loss", "by": "rule:loss_limit"},
    }


@pytest.mark.parametrize(
    ("status", "headers", "error", "pause"),
    [
        (500, {}, ChannelFailed, None),
        (404, {}, ChannelFailed, None),
        (429, {"Retry-After": "30"}, ChannelFailed, 30),
        (503, {"Retry-After": "Sun, 01 Mar 2026 12:02:00 GMT"}, ChannelFailed, 120),
        (400, {}, ChannelRefused, None),
        (302, {"Location": "/elsewhere"}, ChannelFailed, None),
    ],
)
def test_answers_that_mean_it_did_not_arrive(
    receiver: WebReceiver, status: int, headers: dict[str, str], error: type, pause: int | None
) -> None:
    receiver.answers = [(status, headers)]
    with pytest.raises(ChannelFailed, match=f"^answered {status}$") as found:
        web.webhook(receiver.url).send(KILLED, key="notice-7")
    assert type(found.value) is error
    asked = found.value.asked_pause(now=NOON)
    assert asked == (None if pause is None else timedelta(seconds=pause))
    assert len(receiver.posts) == 1  # no redirect was followed


def test_who_does_not_answer_is_given_up(
    receiver: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 0.2)
    over = threading.Event()
    receiver.before = over.wait
    with pytest.raises(ChannelFailed, match=r"^no answer: \w*Timeout\w*$"):
        web.webhook(receiver.url).send(KILLED, key="notice-7")
    over.set()


def test_who_answers_a_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 0.3)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not over.wait(0.05):
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(ChannelFailed, match=r"^no answer: TimeoutError$"):
            web.webhook(f"http://127.0.0.1:{port}").send(KILLED, key="notice-7")
        over.set()
        thread.join()


def nobody() -> str:
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("form", ["http://{nobody}/{secret}", "{secret}", "ftp://x/{secret}"])
def test_no_error_quotes_the_address(form: str) -> None:
    url = form.format(nobody=nobody(), secret=SECRET)
    with pytest.raises(ChannelFailed) as found:
        web.discord(url).send(KILLED, key="notice-7")
    assert SECRET not in str(found.value)
    assert found.value.__suppress_context__
    assert SECRET not in repr(web.discord(url))


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a certificate that this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path)))
    return tmp_path


def mailer(port: int, **fields: Any) -> MailChannel:
    told: dict[str, Any] = {
        "server": f"127.0.0.1:{port}",
        "sender": "liveops@example.com",
        "recipients": ("ann@example.com", "bob@example.com"),
        "login": "liveops",
        "password": PASSWORD,
    }
    return MailChannel(**(told | fields))


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
def test_mail_arrives_encrypted_as_text_and_page(trusted: Path, encryption: str) -> None:
    with mail_receiver(trusted, encryption=encryption) as receiver:
        mailer(receiver.port, security=MailSecurity(encryption)).send(KILLED, key="notice-7")
    [mail] = receiver.mails
    assert receiver.rcpts == [["ann@example.com", "bob@example.com"]]
    assert (receiver.was_encrypted, receiver.logins) == ([True], ["liveops"])
    assert mail["Subject"] == "[CRITICAL] KILL_SWITCH: Account usd is killed"
    assert (mail["From"], mail["To"]) == (
        "liveops@example.com",
        "ann@example.com, bob@example.com",
    )
    assert mail["Message-ID"] == "<notice-7@liveops-bandit>"
    text, page = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert page is not None
    assert "daily loss <3 %> & more" in text.get_content()
    assert "cause: daily_loss" in text.get_content()
    assert "daily loss &lt;3 %&gt; &amp; more" in page.get_content()
    assert 'style="color:#c0392b"' in page.get_content()


def test_mail_without_login_may_go_in_the_clear(tmp_path: Path) -> None:
    with mail_receiver(tmp_path, encryption="none") as receiver:
        open_to_all = mailer(receiver.port, login=None, security=MailSecurity.NONE)
        open_to_all.send(KILLED, key="notice-7")
        with pytest.raises(ChannelFailed, match="a login needs an encrypted connection"):
            mailer(receiver.port, security=MailSecurity.NONE).send(KILLED, key="notice-7")
    assert len(receiver.mails) == 1


def test_a_password_is_not_told_to_who_cannot_prove_its_name(tmp_path: Path) -> None:
    certificate(tmp_path)  # which nobody trusts
    failing = pytest.raises(ChannelFailed, match=r"^no mail: SSLCertVerificationError$")
    with mail_receiver(tmp_path) as receiver, failing:
        mailer(receiver.port).send(KILLED, key="notice-7")
    assert (receiver.mails, receiver.logins) == ([], [])


def test_mail_servers_that_refuse_or_are_dead(trusted: Path) -> None:
    with mail_receiver(trusted) as receiver:
        with pytest.raises(ChannelFailed, match=r"^the mail server answered 535$"):
            mailer(receiver.port, password=SECRET).send(KILLED, key="notice-7")
        port = receiver.port
    with pytest.raises(ChannelFailed, match=r"^no mail: ConnectionRefusedError$"):
        mailer(port).send(KILLED, key="notice-7")


def test_the_log_says_alert(caplog: pytest.LogCaptureFixture) -> None:
    [log] = channels_of(Alerts())
    with caplog.at_level(logging.INFO):
        log.channel.send(KILLED, key="notice-7")
    [record] = caplog.records
    assert record.getMessage() == "[ALERT] KILL_SWITCH Account usd is killed"
    assert record.levelno == logging.ERROR


EVERYTHING = {
    "enabled": True,
    "discord_webhook_url": SECRET,
    "slack_webhook_url": SECRET,
    "telegram_bot_token": SECRET,
    "telegram_chat_id": "1",
    "pagerduty_routing_key": SECRET,
    "webhook_url": SECRET,
    "email_smtp_server": "127.0.0.1",
    "email_recipients": ["ann@example.com"],
    "email_password": SECRET,
}


def test_channels_are_those_that_are_set_up() -> None:
    found = channels_of(Alerts.model_validate(EVERYTHING))
    names = ["log", "discord", "slack", "telegram", "pagerduty", "webhook", "email"]
    assert [each.recipient.name for each in found] == names
    assert SECRET not in repr(found)
    # Neither what is off, nor a half of two, nor an empty text.
    off = EVERYTHING | {"enabled": False}
    halves = {"enabled": True, "telegram_bot_token": "x", "email_smtp_server": "x"}
    for alerts in (off, halves, {"enabled": True, "discord_webhook_url": ""}):
        assert [e.recipient.name for e in channels_of(Alerts.model_validate(alerts))] == ["log"]


def test_preferences_say_who_is_told_of_what() -> None:
    alerts = EVERYTHING | {"alert_on_kill_switch": False, "discord_least_severity": "critical"}
    found = {e.recipient.name: e.recipient for e in channels_of(Alerts.model_validate(alerts))}
    halted = Notice(
        kind=NoticeKind.ARM_HALTED,
        severity=Severity.CRITICAL,
        title="x",
        text="",
        at=NOON,
        incident="arm:btc/x",
    )
    throttled = Notice(
        kind=NoticeKind.ARM_THROTTLED,
        severity=Severity.WARNING,
        title="x",
        text="",
        at=NOON,
        incident="arm:btc/x",
    )
    wants = {name: [r.wants(n) for n in (KILLED, halted, throttled)] for name, r in found.items()}
    assert wants["log"] == [True, True, True]
    assert wants["discord"] == [False, True, False]
    assert wants["slack"] == [False, True, True]
    assert wants["pagerduty"] == [False, True, False]


def test_command_tries_each_channel_and_says_what_became_of_it(
    receiver: WebReceiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "logging: {level: DEBUG}\noperations: {alerts: {enabled: true,"
        f" discord_webhook_url: '{receiver.url}/{SECRET}',"
        f" pagerduty_routing_key: {SECRET}, pagerduty_api_base: '{receiver.url}',"
        f" webhook_url: 'http://{nobody()}/{SECRET}'}}}}\n"
    )
    monkeypatch.setenv("LIVEOPS_CONFIG", str(settings))

    def run(*arguments: str) -> tuple[int, str]:
        code = cli.exit_code(cli.app, ["notify", "test", *arguments])
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        return code, said.out

    assert run() == (
        1,
        "log: sent\ndiscord: sent\npagerduty: sent\nwebhook: failed, no answer: ConnectError\n",
    )
    discord, opened, closed = receiver.bodies
    assert discord["embeds"][0]["title"] == "TEST: This is a test"
    assert [opened["event_action"], closed["event_action"]] == ["trigger", "resolve"]
    assert run("--channel", "discord") == (0, "discord: sent\n")
    assert run("--channel", "slack") == (2, "")
    assert SECRET not in caplog.text
    assert channels.TIMEOUT_SECONDS == 5.0
