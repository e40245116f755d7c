"""The weekly report: its numbers are the ledger's, and each channel gets each week once."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aged_history import NOW, History
from api_service import application, service
from guarded_ledger import open_wide, pause
from ledger import CHALLENGER, NOON, count, open_btc, together
from matplotlib import image
from receivers import PASSWORD, MailReceiver, WebReceiver, certificate, mail_receiver, web_receiver
from sqlalchemy import Engine
from weekly_ledger import EARNED, MADE, OPENING, WEEK, live_a_week

from bandit.core.kill_switch import KillCause
from bandit.core.model import PolicyName, Rung
from bandit.core.notices import DeliveryState, Recipient
from bandit.core.week import Week
from bandit.core.weekly import ArmFigures, weekly_notice
from bandit.service import auditing, killing, noticing, weekly_reporting
from bandit.storage import experiments
from bandit.storage.engine import transaction
from liveops import cli
from liveops.background import Turn
from liveops.clock import VirtualClock
from liveops.notifier import Notifier, Sender, channels_in_force
from liveops.weekly_mail import SENDING_MAX, Told, rendered, tell, weekly_enclosure
from liveops.wiring import App
from snapshots.archive_files import ParquetArchives

REPOSITORY = Path(__file__).parents[2]
DATE = ("--date", "2026-03-09")


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a certificate that this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path)))
    return tmp_path


@pytest.fixture
def mails(trusted: Path) -> Iterator[MailReceiver]:
    with mail_receiver(trusted) as receiver:
        yield receiver


@pytest.fixture
def posts() -> Iterator[WebReceiver]:
    with web_receiver() as receiver:
        yield receiver


def by_mail(receiver: MailReceiver, **alerts: Any) -> dict[str, Any]:
    return {
        "enabled": True,
        "email_smtp_server": f"127.0.0.1:{receiver.port}",
        "email_recipients": ["ann@example.com"],
        "email_login": "liveops",
        "email_password": PASSWORD,
        **alerts,
    }


def app_of(engine: Engine, clock: VirtualClock | None = None, **alerts: Any) -> App:
    settings = {"operations": {"alerts": alerts}}
    return application(engine, clock=clock or VirtualClock(MADE), settings=settings)


def told_by(app: App, week: Week = WEEK) -> Told:
    now = app.clock.now()
    return tell(app, rendered(weekly_reporting.read(app.engine, week, now=now)))


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Run `liveops report weekly` on the ledger of the test; what it prints on stdout."""
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)

    def run(*arguments: str, **alerts: Any) -> tuple[int, str]:
        settings = tmp_path / "settings.yaml"
        settings.write_text(json.dumps({"operations": {"alerts": alerts}}))
        said = ["report", "weekly", *DATE, "--config", str(settings), *arguments]
        code = cli.exit_code(cli.app, said)
        return code, capsys.readouterr().out

    return run


# What is in it


def test_the_week_is_what_the_trades_of_its_seven_days_add_up_to(engine: Engine) -> None:
    live_a_week(engine)
    report = weekly_reporting.read(engine, WEEK, now=MADE).report
    [account], [experiment] = report.accounts, report.experiments
    assert (account.opening, account.pnl, account.closing) == (OPENING, EARNED, OPENING + EARNED)
    assert account.levels(WEEK) == [10_010, 10_015, 10_025, *[10_055] * 5]
    prod, challenger = experiment.arms
    told = [
        (a.policy, a.week.trades, a.week.wins, a.week.pnl, a.week.profit_factor.value)
        for a in (prod, challenger)
    ]
    assert told == [("prod", 3, 2, 15, 2.5), (CHALLENGER, 1, 1, 30, None)]
    assert challenger.week.profit_factor.state.value == "no_losses"
    # 1.0005, 1.0025, 1.0015 at a tenth
    assert prod.week.drawdown_percent == pytest.approx(100 * 0.001 / 1.0025)
    assert prod.life.trades == 5
    assert report.headline == "Week 2026-W10: +45.00 USD, 4 trades, 1 to decide"


def test_what_happened_in_the_week_is_told_with_its_reasons(engine: Engine) -> None:
    live_a_week(engine)
    report = weekly_reporting.read(engine, WEEK, now=MADE).report
    titles = [(event.title, event.by, event.reason) for event in report.events]
    assert titles == [
        ("Account usd is killed (hand)", "cli:ann", "drill"),
        ("Account usd is released (hand)", "cli:ann", "drill"),
    ]
    [experiment] = report.experiments
    halted = experiment.changes[-1]
    assert (halted.kind.value, halted.policy, halted.reason) == ("HALT", CHALLENGER, "looks odd")
    moves = [move.text for move in halted.moves]
    assert f"{CHALLENGER} 10 % to 0 %" in moves
    [state] = report.drift
    assert (state.checks, state.drifted) == (2, ("rsi",))
    assert [text for text in report.awaiting if "is halted (looks odd)" in text]


def test_numbers_are_those_of_the_api(engine: Engine) -> None:
    live_a_week(engine)
    report = weekly_reporting.read(engine, WEEK, now=MADE).report.to_json()
    with service(engine, clock=VirtualClock(MADE)) as client:
        served = client.get("/v1/experiments/btc/report").json()
        [account] = client.get("/v1/accounts").json()
    [told], [of_account] = report["experiments"], report["accounts"]
    names = ("trades", "wins", "win_rate", "pnl", "profit_factor", "drawdown_max_percent")
    assert [{n: arm["life"][n] for n in names} for arm in told["arms"]] == [
        {n: arm[n] for n in names} for arm in served["arms"]
    ]
    stands = ("policy", "role", "status", "traffic_allocation")
    assert [[arm[n] for n in stands] for arm in told["arms"]] == [
        [arm[n] for n in stands] for arm in served["arms"]
    ]
    assert of_account["equity_now"] == account["equity"]
    assert of_account["drawdown_percent_now"] == account["drawdown_percent"]


def test_archived_trades_still_count_and_only_the_drawdown_is_gone(
    engine: Engine, tmp_path: Path
) -> None:
    history = History(engine, ParquetArchives(tmp_path))
    history.live()
    earned: dict[str, list[tuple[Decimal, Decimal]]] = {"prod": [], CHALLENGER: []}
    for told in history.told.values():
        if told.closed_at is not None and WEEK.start <= told.closed_at < WEEK.end:
            earned[history.made[told.assignment_id].policy].append((told.pnl, told.return_ratio))

    def figures() -> dict[str, ArmFigures]:
        found = weekly_reporting.read(engine, WEEK, now=NOW).report
        return {arm.policy: arm.week for each in found.experiments for arm in each.arms}

    before = figures()
    for policy, trades in earned.items():
        week = before[policy]
        assert (week.trades, week.pnl) == (len(trades), sum(pnl for pnl, _ in trades))
        assert week.wins == sum(ratio > 0 for _, ratio in trades) > 0
        assert week.drawdown_percent is not None
    history.age()
    assert figures() == {
        policy: replace(week, drawdown_percent=None) for policy, week in before.items()
    }


def test_guards_and_notices_of_the_week_are_told(engine: Engine) -> None:
    open_wide(engine)
    log = [Recipient(name="log")]
    noticing.follow(engine, log, now=NOON)
    pause(engine)
    auditing.seal(engine, now=NOON)
    noticing.follow(engine, log, now=NOON)
    report = weekly_reporting.read(engine, Week.ended_by(WEEK.monday), now=MADE).report
    assert [(event.title, event.by) for event in report.events] == [
        ("Performance guard of account usd: NORMAL to PAUSED", "rule:performance_guard"),
        ("Performance guard of experiment btc: NORMAL to PAUSED", "rule:performance_guard"),
    ]
    assert report.notices == {"PERFORMANCE_GUARD_PAUSED": 2}
    assert report.told == {("log", "pending"): 2}
    later = weekly_reporting.read(engine, WEEK, now=MADE).report
    assert (later.events, later.notices, later.told) == ((), {}, {})


def test_what_waits_for_a_person_is_named_with_what_to_type(engine: Engine) -> None:
    record = open_btc(engine)
    with transaction(engine) as connection:
        experiments.set_rungs(connection, record.id, {PolicyName(CHALLENGER): Rung.ELIGIBLE})
    killing.kill(engine, None, cause=KillCause.HAND, reason="drill", now=NOON, actor="test")
    report = weekly_reporting.read(engine, WEEK, now=MADE).report
    assert report.awaiting == (
        "Account usd is killed since 2026-03-01 12:00 (hand: drill): "
        "`liveops release --account usd` lets it trade again.",
        f"{CHALLENGER} in btc is eligible: "
        f"`liveops promote btc {CHALLENGER}` may make it the champion.",
    )


def test_what_begins_later_is_not_in_an_earlier_week(engine: Engine) -> None:
    open_btc(engine)  # on the last day of the week before
    before = Week.ended_by(NOON.date())
    assert weekly_reporting.read(engine, before, now=MADE).report.experiments == ()
    found = weekly_reporting.read(engine, Week.ended_by(WEEK.monday), now=MADE).report
    assert [each.name for each in found.experiments] == ["btc"]
    assert found.headline == "Week 2026-W09: 0.00 USD, 0 trades"


def test_an_empty_ledger_is_told_honestly(command: Command, mails: MailReceiver) -> None:
    code, said = command(**by_mail(mails))
    assert code == 0
    assert "Week 2026-W10: no account, 0 trades" in said
    assert "No account had an experiment in this week." in said
    [mail] = mails.mails
    assert mail["Subject"] == "[INFO] WEEKLY_REPORT: Week 2026-W10: no account, 0 trades"


# The mail


def parts(mail: EmailMessage) -> tuple[str, str, dict[str, bytes]]:
    """The text, the page, and the pictures by their Content-ID, of a mail of the right shape."""
    assert mail.get_content_type() == "multipart/alternative"
    text, related = mail.iter_parts()
    assert (text.get_content_type(), related.get_content_type()) == (
        "text/plain",
        "multipart/related",
    )
    page, *pictures = related.iter_parts()
    assert page.get_content_type() == "text/html"
    assert {p.get_content_type() for p in pictures} == {"image/png"}
    assert {p.get_content_disposition() for p in pictures} == {"inline"}
    by_cid = {p["Content-ID"].strip("<>"): p.get_content() for p in pictures}
    assert len(by_cid) == len(pictures)
    return text.get_content(), page.get_content(), by_cid


def test_mail_has_the_numbers_and_the_pictures_and_loads_nothing(
    engine: Engine, command: Command, mails: MailReceiver
) -> None:
    live_a_week(engine)
    code, _ = command(**by_mail(mails))
    assert code == 0
    assert (mails.was_encrypted, mails.logins) == ([True], ["liveops"])
    [mail] = mails.mails
    text, page, pictures = parts(mail)
    shown = re.findall(r'<img src="cid:([^"]+)"', page)
    assert sorted(shown) == sorted(pictures)
    assert {cid.removesuffix("@liveops-bandit") for cid in pictures} == {
        "2026-W10-account-1",
        "2026-W10-arms-1",
        "2026-W10-life-1",
    }
    for picture in pictures.values():
        drawn = image.imread(io.BytesIO(picture), format="png")
        assert drawn.shape[1] > 400
        assert drawn.min() < drawn.max()
    for body in (text, page):
        assert "10,010.00 to 10,055.00 USD, +45.00 (+0.45 %)" in body
        assert "no losses" in body
        assert "Account usd is killed (hand), by cli:ann: drill" in body
    links = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    assert all(link.startswith("cid:") for link in links)
    assert not re.search(r"https?:|<script|<link|@import", page)


def test_a_week_is_told_once_and_other_channels_get_its_headline(
    engine: Engine, command: Command, mails: MailReceiver, posts: WebReceiver
) -> None:
    live_a_week(engine)
    alerts = by_mail(mails, webhook_url=posts.url, pagerduty_routing_key="x")
    alerts["pagerduty_api_base"] = posts.url
    code, first = command("--json", **alerts)
    again, second = command("--json", **alerts)
    assert (code, again) == (0, 0)
    done = {"sent on log", "sent on webhook", "sent on email"}
    assert set(json.loads(first)["done"]) == done
    assert json.loads(second)["done"] == []
    assert json.loads(second)["channels"] == dict.fromkeys(("email", "log", "webhook"), "sent")
    assert len(mails.mails) == 1
    [body] = posts.bodies
    assert (body["kind"], body["title"], body["text"].splitlines()[0]) == (
        "WEEKLY_REPORT",
        "Week 2026-W10: +45.00 USD, 4 trades, 1 to decide",
        "usd: +45.00 USD",
    )


def test_a_channel_set_up_later_is_told_of_the_week_too(
    command: Command, mails: MailReceiver, posts: WebReceiver
) -> None:
    assert command(enabled=True, webhook_url=posts.url)[0] == 0
    assert command(**by_mail(mails, webhook_url=posts.url))[0] == 0
    assert (len(posts.posts), len(mails.mails)) == (1, 1)


def test_nobody_is_told_who_does_not_want_it(
    engine: Engine, command: Command, mails: MailReceiver
) -> None:
    assert command(**by_mail(mails, alert_on_weekly_report=False))[0] == 0
    assert command(**(by_mail(mails) | {"enabled": False}))[0] == 0
    assert command("--no-send", **by_mail(mails))[0] == 0
    assert mails.mails == []
    assert count(engine, "notice_deliveries") == 1  # the log's


def test_dry_run_says_what_would_be_done_and_does_nothing(
    engine: Engine, command: Command, mails: MailReceiver, tmp_path: Path
) -> None:
    page = tmp_path / "week.html"
    dry = ("--dry-run", "--json", "--html", str(page))
    code, said = command(*dry, **by_mail(mails))
    wanted = [f"would write {page}", "would send on log", "would send on email"]
    assert (code, json.loads(said)["done"]) == (0, wanted)
    assert (mails.mails, count(engine, "notices"), page.exists()) == ([], 0, False)
    command(**by_mail(mails))
    _, said = command("--dry-run", "--json", **by_mail(mails))
    assert json.loads(said)["done"] == []


def test_page_in_a_file_has_its_pictures_in_it(
    engine: Engine, command: Command, tmp_path: Path
) -> None:
    live_a_week(engine)
    page = tmp_path / "week.html"
    assert command("--no-send", "--html", str(page))[0] == 0
    told = page.read_text(encoding="utf-8")
    assert told.count('src="data:image/png;base64,') == 3
    assert "cid:" not in told


@pytest.mark.parametrize(
    ("date", "said"),
    [
        ("2026-13-01", "invalid_input: --date: must be a day such as 2026-03-09"),
        ("2100-01-01", "invalid_input: --date: must lie in a week that is over"),
    ],
)
def test_other_dates_are_refused(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    date: str,
    said: str,
) -> None:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    assert cli.exit_code(cli.app, ["report", "weekly", "--date", date]) == 2
    assert capsys.readouterr().err.startswith(said)


# When something fails


def test_what_failed_is_sent_by_the_service_with_all_of_it(
    engine: Engine, mails: MailReceiver, trusted: Path
) -> None:
    live_a_week(engine)
    clock = VirtualClock(MADE)
    wrong = app_of(engine, clock, **by_mail(mails, email_password="wrong"))  # noqa: S106 - a test's
    told = told_by(wrong)
    assert (told.arrived, told.states["email"]) == (False, DeliveryState.PENDING)
    app = app_of(engine, clock, **by_mail(mails))
    channels = channels_in_force(app, enclosing=partial(weekly_enclosure, app))
    notifier = Notifier(app, channels)
    try:
        clock.advance_to(MADE + timedelta(minutes=1))
        notifier.look()
        for addressed in channels:
            Sender(app, notifier, addressed).look(Turn("nothing is sent"))
    finally:
        notifier.leave()
    [mail] = mails.mails
    assert len(parts(mail)[2]) == 3
    assert told_by(app).sent == ()
    assert len(mails.mails) == 1


KILLED_WHILE_SENDING = """
import sys
from bandit.storage.engine import connect
from test_weekly_report import app_of, told_by

told_by(app_of(connect(sys.argv[1]), enabled=True, webhook_url=sys.argv[2]))
"""


def test_killed_between_sending_and_writing_it_down_sends_once_more(
    engine: Engine, database_url: str, posts: WebReceiver
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_SENDING, database_url, posts.url],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(["tests", "tests/integration", *sys.path]),
        },
        cwd=REPOSITORY,
    )
    posts.before = lambda: process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=120) == -signal.SIGKILL
    posts.before = lambda: None
    clock = VirtualClock(MADE)
    app = app_of(engine, clock, enabled=True, webhook_url=posts.url)
    told = told_by(app)
    assert (told.arrived, told.sent) == (False, ())  # somebody may still be sending it
    clock.advance_to(MADE + SENDING_MAX)
    assert told_by(app).sent == ("webhook",)
    assert told_by(app).arrived
    first, again = posts.bodies
    assert first == again


def test_two_at_once_tell_a_week_once(engine: Engine, posts: WebReceiver) -> None:
    app = app_of(engine, enabled=True, webhook_url=posts.url)
    reading = weekly_reporting.read(engine, WEEK, now=MADE)
    recipients = [each.recipient for each in channels_in_force(app)]

    def claimed() -> int:
        _, ours = noticing.tell_week(
            engine, weekly_notice(reading.report), recipients, now=MADE, pause=SENDING_MAX
        )
        return len(ours)

    assert sorted(map(str, together(*[claimed] * 4))) == ["0", "0", "0", "2"]
    assert count(engine, "notices") == 1
