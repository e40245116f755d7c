"""The weekly report as a value, and as text, page and pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest

from alerts.channels.mail import Enclosure, mail_of
from bandit.core.errors import InvalidInput
from bandit.core.model import ArmRole, ArmStatus, DecisionKind, PolicyName
from bandit.core.notices import NoticeKind, Severity
from bandit.core.profit_factor import ProfitFactor
from bandit.core.week import Week
from bandit.core.weekly import (
    AccountWeek,
    ArmFigures,
    ArmWeek,
    Change,
    DriftState,
    Event,
    ExperimentWeek,
    Move,
    WeeklyReport,
    shown_money,
    week_of,
    weekly_notice,
)
from bandit.service.charting import ArmLife, Life, Point, Version
from bandit.service.weekly_reporting import WeeklyReading
from liveops.weekly_mail import rendered
from liveops.weekly_page import LINES_MAX, as_page, as_text, blocks_of

WEEK = Week(monday=date(2026, 3, 2))
MADE = datetime(2026, 3, 9, 6, tzinfo=UTC)
# No ledger takes such a name; whoever writes another one must not reach into a mail.
HOSTILE = '"><script>alert(1)</script><img src=https://evil.example/x.png> & $\\frac{1}{0}$'


def figures(trades: int = 2, won: float = 3.0, lost: float = 2.0, **changes: Any) -> ArmFigures:
    factor = ProfitFactor(gross_profit=won, gross_loss=lost, n=trades, n_losses=1 if lost else 0)
    told: dict[str, Any] = {
        "trades": trades,
        "wins": trades - factor.n_losses,
        "pnl": Decimal("12.3456789"),
        "profit_factor": factor,
        "drawdown_percent": 1.25,
    }
    return ArmFigures(**(told | changes))


def an_arm(policy: str = "prod", **changes: Any) -> ArmWeek:
    told: dict[str, Any] = {
        "policy": PolicyName(policy),
        "role": ArmRole.CHAMPION,
        "status": ArmStatus.ACTIVE,
        "ppm": 900_000,
        "week": figures(),
        "life": figures(5),
        "by_day": {WEEK.monday: Decimal("12.3456789")},
        "evidence": "It is the champion.",
    }
    return ArmWeek(**(told | changes))


def a_report(policy: str = "prod", **changes: Any) -> WeeklyReport:
    moved = Move(policy=PolicyName(policy), before=None, after=100_000)
    change = Change(
        at=WEEK.start,
        kind=DecisionKind.PROMOTE,
        by="cli:ann",
        reason=f"because {policy}",
        policy=policy,
        moves=(moved,),
    )
    told: dict[str, Any] = {
        "week": WEEK,
        "made_at": MADE,
        "accounts": (an_account(),),
        "experiments": (
            ExperimentWeek(
                name="btc",
                account="usd",
                currency="USD",
                champion=PolicyName(policy),
                arms=(an_arm(policy),),
                changes=(change,),
            ),
        ),
        "events": (Event(at=WEEK.start, title="Account usd is killed", by=policy, reason=policy),),
        "notices": {"KILL_SWITCH": 2},
        "told": {("email", "sent"): 1, ("email", "given_up"): 1},
        "drift": (DriftState(subject=policy, checked_at=MADE, checks=3, drifted=("rsi",)),),
        "awaiting": (f"{policy} waits",),
    }
    return WeeklyReport(**(told | changes))


def an_account(**changes: Any) -> AccountWeek:
    told: dict[str, Any] = {
        "name": "usd",
        "currency": "USD",
        "opening": Decimal(10_000),
        "by_day": {WEEK.monday: Decimal("12.3456789"), WEEK.days[6]: Decimal(-2)},
        "equity_now": Decimal("10020.5"),
        "drawdown_percent_now": 0.5,
        "is_killed": False,
    }
    return AccountWeek(**(told | changes))


def a_life(policy: str = "prod") -> Life:
    opened = WEEK.start - timedelta(days=3)
    curve = (Point(at=opened, earned=0.0),)
    arm = ArmLife(
        policy=PolicyName(policy),
        status=ArmStatus.ACTIVE,
        joined_at=opened,
        earned=curve,
        nights=(),
    )
    return Life(
        experiment="btc",
        account="usd",
        opened_at=opened,
        until=MADE,
        versions=(Version(since=opened, champion=PolicyName(policy), parts={}),),
        arms=(arm,),
        earned=curve,
    )


EMPTY = {
    "accounts": (),
    "experiments": (),
    "events": (),
    "notices": {},
    "told": {},
    "drift": (),
    "awaiting": (),
}


# The value


def test_a_week_is_monday_to_monday_also_at_the_end_of_a_year() -> None:
    week = Week.ended_by(date(2027, 1, 4))  # a Monday
    assert (week.name, week.monday, week.end.date()) == (
        "2026-W53",
        date(2026, 12, 28),
        date(2027, 1, 4),
    )
    assert Week.named(week.name) == week
    assert Week.ended_by(date(2027, 1, 3)).name == "2026-W52"


@pytest.mark.parametrize("name", ["", "2026", "2026-W54", "2026-Wx", "W10-2026"])
def test_other_names_of_weeks_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="must be an ISO week"):
        Week.named(name)


def test_money_is_exact_and_adds_up() -> None:
    account = an_account()
    assert account.pnl == Decimal("10.3456789")
    assert account.closing == Decimal("10010.3456789")
    levels = account.levels(WEEK)
    assert (len(levels), levels[0], levels[1], levels[-1]) == (
        8,
        Decimal(10_000),
        Decimal("10012.3456789"),
        Decimal("10010.3456789"),
    )
    assert an_account(opening=Decimal(0)).percent is None
    assert shown_money(Decimal("-0.00000001")) == "-0.00000001"


def test_the_headline_adds_up_accounts_by_currency() -> None:
    accounts = (
        an_account(),
        an_account(name="usd-2"),
        an_account(name="eur", currency="EUR", by_day={WEEK.monday: Decimal("-5.5")}),
    )
    said = a_report(accounts=accounts).headline
    assert said == "Week 2026-W10: +20.69 USD, -5.50 EUR, 2 trades, 1 promotion, 1 to decide"


def test_the_notice_names_its_week_and_nothing_is_lost_in_json() -> None:
    report = a_report()
    notice = weekly_notice(report)
    assert (notice.kind, notice.severity) == (NoticeKind.WEEKLY_REPORT, Severity.INFO)
    assert week_of(notice) == WEEK
    assert notice.text == "usd: +10.35 USD\nto decide: prod waits"
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["accounts"][0]["pnl"] == "10.3456789"
    assert told["experiments"][0]["arms"][0]["week"]["pnl"] == "12.3456789"
    assert told["told"] == [
        {"channel": "email", "state": "sent", "notices": 1},
        {"channel": "email", "state": "given_up", "notices": 1},
    ]


# Text and page


class Seen(HTMLParser):
    """The elements and the words of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(report: WeeklyReport, *pictures: str) -> Seen:
    said = blocks_of(report, pictures)
    return Seen(as_page(said, title=report.headline, source=lambda name: f"cid:{name}"))


def test_hostile_names_are_words_and_nothing_else() -> None:
    seen = page_of(a_report(HOSTILE), "account-1", "arms-1", "life-1")
    tags = {tag for tag, _ in seen.tags}
    assert "script" not in tags
    assert [attributes["src"] for tag, attributes in seen.tags if tag == "img"] == [
        "cid:account-1",
        "cid:arms-1",
        "cid:life-1",
    ]
    assert {name for _, attributes in seen.tags for name in attributes} <= {
        *("lang", "charset", "name", "content", "style", "src", "width", "alt"),
        *("colspan", "scope"),
    }
    assert any(HOSTILE in word for word in seen.words)


def test_hostile_names_are_drawn_as_they_are() -> None:
    reading = WeeklyReading(report=a_report(HOSTILE), lives={"btc": a_life(HOSTILE)})
    found = rendered(reading)  # as mathematics it could not be drawn
    assert set(found.pictures) == {"account-1", "arms-1"}
    assert all(picture.startswith(b"\x89PNG\r\n\x1a\n") for picture in found.pictures.values())


def test_text_and_page_say_the_same() -> None:
    report = a_report()
    seen = " ".join(" ".join(page_of(report).words).split())
    for line in as_text(blocks_of(report, ())).splitlines():
        words = line.lstrip("- ").split("  ")
        assert all(word.strip() in seen for word in words if set(word) - set("=- "))


def test_a_profit_factor_without_a_number_says_why() -> None:
    [experiment] = a_report().experiments
    arms = (
        an_arm("unbeaten", week=figures(2, lost=0.0)),
        an_arm("idle", week=figures(0, won=0.0, lost=0.0, pnl=Decimal(0), drawdown_percent=None)),
    )
    said = as_text(blocks_of(a_report(experiments=(replace(experiment, arms=arms),)), ()))
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert "unbeaten 90.0 % 2 +12.35 no losses 100 % 1.25 %" in rows
    assert "idle 90.0 % 0 0.00 no trades - archived" in rows


def test_an_empty_week_says_so_everywhere() -> None:
    report = a_report(**EMPTY)
    said = as_text(blocks_of(report, ()))
    assert "No account had an experiment in this week." in said
    assert "No drift check was made since the week began." in said
    assert said.count("- Nothing.") == 3  # to decide, of guards, told
    assert rendered(WeeklyReading(report=report, lives={})).pictures == {}
    assert weekly_notice(report).text == "No account had an experiment yet."


def test_long_lists_are_cut_and_say_so() -> None:
    event = Event(at=WEEK.start, title="Performance guard of x", by="rule", reason="drill")
    said = as_text(blocks_of(a_report(events=(event,) * (LINES_MAX + 7)), ()))
    assert said.count("Performance guard of x") == LINES_MAX
    assert "- And 7 more: `liveops report weekly --json` has them all." in said


def test_a_mail_holds_the_page_beside_its_pictures() -> None:
    enclosed = Enclosure(text="words", page="<p>words</p>", pictures={"a@b": b"\x89PNG"})
    notice = weekly_notice(a_report())
    mail = mail_of(notice, "notice-7", "a@example.com", ("b@example.com",), enclosed=enclosed)
    kinds = [part.get_content_type() for part in mail.walk()]
    assert kinds == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
    ]
    assert [part["Content-ID"] for part in mail.walk() if part["Content-ID"]] == ["<a@b>"]
