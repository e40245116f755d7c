"""What an audit row becomes for people, and that the page of notices says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from vitals import NOON, beat, record

from bandit.core.audit_chain import AuditId, AuditRow
from bandit.core.health import HealthLimits, Vitals, assess
from bandit.core.health_table import HealthLevel
from bandit.core.notices import (
    TEXT_MAX,
    TITLE_MAX,
    TOLD,
    Notice,
    NoticeKind,
    Severity,
    health_notice,
    notice_of,
    pause_after,
)
from config.alerts import Alerts
from liveops.notice_channels import _kinds

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "notifications.md").read_text("utf-8")


def row(action: str, subject: str = "btc", **details: Any) -> AuditRow:
    return AuditRow(
        id=AuditId(7),
        at="2026-03-01T12:00:00.000000Z",
        actor="rule:checklist",
        action=action,
        subject=subject,
        details=json.dumps(details),
    )


PAUSED = {"before": "REDUCED", "after": "PAUSED", "reason": "streak 10"}
EXPECTED: Mapping[str, tuple[AuditRow, NoticeKind, Severity, str, str, bool]] = {
    "kill": (
        row("KILL", "usd", cause="hand", reason="drill"),
        NoticeKind.KILL_SWITCH,
        Severity.CRITICAL,
        "Account usd is killed",
        "kill:usd",
        False,
    ),
    "release": (
        row("RELEASE", "usd", cause="hand", reason="over"),
        NoticeKind.KILL_SWITCH,
        Severity.INFO,
        "Account usd is released",
        "kill:usd",
        True,
    ),
    "pause": (
        row("performance_guard", "account usd", **PAUSED),
        NoticeKind.PERFORMANCE_GUARD_PAUSED,
        Severity.CRITICAL,
        "Performance guard of account usd is PAUSED",
        "guard:account usd",
        False,
    ),
    "reduce": (
        row("performance_guard", "account usd", before="NORMAL", after="REDUCED"),
        NoticeKind.PERFORMANCE_GUARD_REDUCED,
        Severity.WARNING,
        "Performance guard of account usd is REDUCED",
        "guard:account usd",
        False,
    ),
    "recover": (
        row("performance_guard", "account usd", before="PAUSED", after="NORMAL"),
        NoticeKind.PERFORMANCE_GUARD_RECOVERED,
        Severity.INFO,
        "Performance guard of account usd is NORMAL",
        "guard:account usd",
        True,
    ),
    "halt of an older release": (
        row("HALT", reason="drill"),
        NoticeKind.ARM_HALTED,
        Severity.CRITICAL,
        "an arm in btc is halted",
        "arm:btc/an arm",
        False,
    ),
    "job done": (
        row("learner_job_done", "agent", job=1, asked="refresh_encoder", result="agent_2"),
        NoticeKind.MODEL_ROTATION,
        Severity.INFO,
        "Model of agent was made anew",
        "learner:agent",
        False,
    ),
    "model replaced": (
        row("model_rotated", "agent", new="agent-2", verdict="PASS", placings={"btc": "replaced"}),
        NoticeKind.MODEL_ROTATION,
        Severity.WARNING,
        "agent-2 has the place of agent",
        "rotation:agent",
        False,
    ),
    "model joined": (
        row("model_rotated", "agent", new="agent-2", verdict="PASS", placings={"btc": "joined"}),
        NoticeKind.MODEL_ROTATION,
        Severity.INFO,
        "agent-2 challenges, made anew of agent",
        "rotation:agent",
        False,
    ),
    "model kept out": (
        row("model_rotated", "agent", new="agent-2", verdict="FAIL", placings={"btc": "kept_out"}),
        NoticeKind.MODEL_ROTATION,
        Severity.INFO,
        "agent was made anew, and the new one is kept out",
        "rotation:agent",
        False,
    ),
    "job failed": (
        row("learner_job_failed", "agent", job=1, asked="refresh_encoder", result="no bars"),
        NoticeKind.MODEL_ROTATION,
        Severity.WARNING,
        "Model of agent could not be made anew",
        "learner:agent",
        False,
    ),
    "account blocked": (
        row(
            "reconciliation", "usd", **{"from": "AGREES", "to": "BLOCKED", "differed": "1 missing"}
        ),
        NoticeKind.HEALTH_ISSUE,
        Severity.CRITICAL,
        "Account usd differs from its bots: nothing new opens",
        "reconciliation:usd",
        False,
    ),
    "account agrees": (
        row("reconciliation", "usd", **{"from": "BLOCKED", "to": "AGREES"}),
        NoticeKind.HEALTH_ISSUE,
        Severity.INFO,
        "Account usd agrees with its bots again",
        "reconciliation:usd",
        True,
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_row_becomes_a_notice(name: str) -> None:
    told, kind, severity, title, incident, resolves = EXPECTED[name]
    notice = notice_of(told)
    assert notice is not None
    assert (notice.kind, notice.severity, notice.title) == (kind, severity, title)
    assert (notice.incident, notice.resolves, notice.at) == (incident, resolves, NOON)
    assert ("by", "rule:checklist") in notice.fields


@pytest.mark.parametrize(
    "told",
    [
        row("performance_guard", before="NORMAL", after="NORMAL"),
        row("performance_guard"),
        row("drift", checks=3, drifted=0),
        row("drift"),
        row("reconciliation", "usd", **{"from": "AGREES", "to": "AGREES"}),
    ],
)
def test_what_is_no_news_becomes_none(told: AuditRow) -> None:
    assert notice_of(told) is None


@pytest.mark.parametrize("action", TOLD)
def test_a_row_without_details_stops_nobody(action: str) -> None:
    notice = notice_of(row(action))
    assert notice is None or notice.title


def test_health_is_told_with_its_issues() -> None:
    stopped = record(beat(running=False))
    health = assess(Vitals(now=NOON, bots=(stopped,)), HealthLimits())
    notice = health_notice(health, before=HealthLevel.DEGRADED, at=NOON)
    assert notice.title == "Health is UNHEALTHY, was DEGRADED"
    assert (notice.severity, notice.resolves) == (Severity.CRITICAL, False)
    assert notice.text.startswith("bot alpha said at")
    well = health_notice(assess(Vitals(now=NOON), HealthLimits()), before=health.level, at=NOON)
    assert (well.severity, well.text, well.resolves) == (Severity.INFO, "nothing is wrong", True)


def test_long_texts_are_cut_and_a_title_is_one_line() -> None:
    notice = Notice(
        kind=NoticeKind.TEST,
        severity=Severity.INFO,
        title="two\nlines\r\n" + "x" * 500,
        text="y" * 5000,
        at=NOON,
        incident="test",
    )
    assert (len(notice.title), len(notice.text)) == (TITLE_MAX, TEXT_MAX)
    assert notice.title.startswith("two lines xxx")


def test_pauses_get_longer_and_stay_a_quarter_of_an_hour() -> None:
    pauses = [pause_after(n) for n in range(1, 40)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (timedelta(seconds=5), timedelta(minutes=15))


def test_the_page_has_every_kind_and_the_key_that_switches_it_off() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    on_page = {cells[0].strip("| `"): cells[3].strip("| `") for cells in rows if len(cells) == 4}
    assert list(on_page) == [kind.value for kind in NoticeKind]
    for kind, key in on_page.items():
        alerts = Alerts() if key == "nothing" else Alerts.model_validate({key: False})
        assert (NoticeKind(kind) in _kinds(alerts)) is (key == "nothing")
