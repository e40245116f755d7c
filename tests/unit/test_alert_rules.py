"""The alert rules: complete, lawful, fresh, and shown to do what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.alertmanager import SCOPE, receivers_of
from alerts.limits import AlertLimits, AlertPlaces
from alerts.rule import AlertRule, Component, Recording, Severity, Take
from alerts.rule_files import annotations_of, faults, names_in
from alerts.rule_tests import cases
from alerts.rules import COMING, NOTICES, rules
from alerts.rules_reference import render
from config.settings import Settings
from liveops.alerting import (
    Directories,
    ProgramMissing,
    alerting_of,
    check,
    generate,
    run_tests,
    write_tests,
)

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT.parent / "shared" / "seeds"
RULES = rules(AlertLimits(), AlertPlaces())
BY_NAME = {rule.name: rule for rule in RULES}

# By hand, from the documents: the alerts that each names, with severity where it gives one.
FIRST_FOUR = (
    "ChallengerProfitFactorLow",
    "ChallengerDrawdownHigh",
    "SystemDowntime",
    "AccountBalanceLow",
)
NEXT_FOUR = (
    "EncoderKLDivergenceHigh",
    "GPUUtilizationHigh",
    "ConsecutiveLossesHigh",
    "APIErrorRateHigh",
)

# The lines that ask for an alert, by document: from which heading, to which, and how one begins.
ASKING = (
    ("000", "**Alert Types:**", "**Alert Channels:**", r"\d\. (\*\*\w+\*\*: .+)"),
    ("000", "**Detected Issues:**", "**Integration:**", r"(- .+)"),
    ("001", "| Metric | Expected Band", "**Prometheus alerts", r"(\| `\w+` \|.+)"),
    ("001", "### Critical Alerts", "## ", r"- (\*\*\w+\*\*: .+)"),
    ("001", "### Warning Alerts", "## ", r"- (\*\*\w+\*\*: .+)"),
    ("002", "**Alerts Triggered:**", "---", r"(- .+)"),
    ("003", "**Rollback Triggers**:", "**SLA**", r"(- .+)"),
    ("003", "**Auto-Rollback Conditions**:", "---", r"(- .+)"),
    ("003", "**Alert Thresholds**:", "---", r"(- .+)"),
    ("003", "### Alert Rules", "---", r"(- .+)"),
    ("004", "### Alerting Rules", "---", r"(- .+)"),
)


def document(number: str) -> str:
    found = next(iter(SEEDS.glob(f"{number}_*.txt")), None)
    if found is None:
        pytest.skip("the documents are not beside this checkout")
    return found.read_text(encoding="utf-8")


def quotes(number: str) -> list[str]:
    sources = [s for rule in RULES for s in rule.sources]
    sources += [s for later in COMING for s in later.sources]
    sources += [s for told in NOTICES.values() for s in told]
    return [source.quote for source in sources if source.document == number]


def asked_for() -> Iterator[tuple[str, str]]:
    """Number and line of each thing that a document wants told."""
    for number, begin, end, line in ASKING:
        text = document(number)
        assert text.count(begin) == 1, begin
        part = text.split(begin)[1].split(end)[0]
        found = re.findall(rf"^{line}$", part, flags=re.MULTILINE)
        assert found, begin
        yield from ((number, one) for one in found)


def test_every_alert_of_the_documents_is_a_rule_or_said_to_come() -> None:
    asked = list(asked_for())
    assert len(asked) == 60
    lost = [(n, line) for n, line in asked if not any(quote in line for quote in quotes(n))]
    assert lost == []


@pytest.mark.parametrize("number", ["000", "001", "002", "003", "004"])
def test_quotes_stand_in_their_documents(number: str) -> None:
    text = document(number)
    assert [quote for quote in quotes(number) if quote not in text] == []


def test_the_first_four_are_critical_and_the_next_four_warnings() -> None:
    assert {BY_NAME[name].severity for name in FIRST_FOUR} == {Severity.CRITICAL}
    assert {BY_NAME[name].severity for name in NEXT_FOUR} == {Severity.WARNING}


@pytest.mark.parametrize(
    ("name", "fires", "wait"),
    [
        ("ChallengerProfitFactorLow", ":pf_challenger_30:min_min2m < 1.6 and", "0:00:00"),
        ("ChallengerDrawdownHigh", ":dd_challenger_pct:max_max2m > 4 and", "0:00:00"),
        ("AccountBalanceLow", ":liveops_account_equity:min_min2m < 10", "0:00:00"),
        ("EncoderKLDivergenceHigh", "encoder_kl_calibrated:max_max2m > 0.3 unless", "0:00:00"),
        ("GPUUtilizationHigh", ":liveops_gpu_busy_ratio:max_last2m > 0.6", "0:15:00"),
        ("ConsecutiveLossesHigh", ":liveops_arm_losing_streak:max_max2m >= 5 and", "0:00:00"),
        ("APIErrorRateHigh", ":liveops_bot_api_errors:max_max2m > 5", "0:00:00"),
        ("DailyLossHigh", ":liveops_account_daily_loss_ratio:max_max2m > 0.03", "0:00:00"),
        ("DrawdownHigh", ":liveops_account_drawdown_ratio:max_max2m > 0.1", "0:00:00"),
        ("WinRateLow", ":liveops_arm_win_ratio:min_min2m < 0.5 and", "0:00:00"),
        ("SharpeRatioLow", ":liveops_arm_sharpe_ratio:min_last2m < 0.5 and", "7 days, 0:00:00"),
        ("BotSilent", ":liveops_bot_heartbeat_age_seconds:max_max2m > 120", "0:00:00"),
        ("DataFeedStalled", ":liveops_candle_gap_seconds:max_max2m > 900", "0:00:00"),
        ("NoTrades", ":liveops_trade_age_seconds:max_max2m > 604800", "0:00:00"),
        ("APIDisconnected", ":liveops_bot_api_connected:min_last2m == 0", "0:05:00"),
        ("CircuitBreakerOpen", ":liveops_bot_breakers_open:max_last2m > 0", "0:00:00"),
        ("LatencyHigh", ':p99_rate5m{route=~"assignments|decisions|claims"} > 0.2', "0:05:00"),
        ("SystemDowntime", "(service:up:max_last2m or vector(0)) == 0", "0:02:00"),
    ],
)
def test_thresholds_are_those_of_the_documents(name: str, fires: str, wait: str) -> None:
    assert fires in BY_NAME[name].expression
    assert str(BY_NAME[name].wait) == wait


def test_settings_move_thresholds_in_rules_and_in_their_tests() -> None:
    given = {
        "checklist": {"pf_throttle": 1.7},
        "alert_rules": {"win_rate_low": 0.4, "win_rate_hours": 24, "breaker_open_minutes": 10},
    }
    found = {rule.name: rule for rule in alerting_of(Settings.model_validate(given)).rules}
    assert "< 1.7 and" in found["ChallengerProfitFactorLow"].expression
    assert "under 1.7." in found["ChallengerProfitFactorLow"].drill.description
    assert found["WinRateLow"].wait == timedelta(hours=24)
    assert "< 0.4 and" in found["WinRateLow"].expression
    assert found["CircuitBreakerOpen"].wait == timedelta(minutes=10)


def test_our_own_lint_finds_nothing() -> None:
    assert list(faults(RULES, AlertPlaces())) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "account_low"}, "its name must be in CamelCase"),
        ({"summary": "Low"}, "its summary must be one sentence"),
        ({"summary": "{{ $value }} is low."}, "its summary must be one sentence"),
        ({"description": "Low."}, "its description must say of what it is"),
        ({"description": "{{ $value }} is low"}, "its description must end with a full stop"),
        ({"at_once": ""}, "it must wait, or say why it does not"),
        ({"expression": "unheard_of > 1"}, "unheard_of is neither in the catalogue"),
        (
            {"reads": (Recording(of="unheard_of", take=Take.LOWEST),), "expression": "vector(1)"},
            "unheard_of is not in the catalogue of metrics",
        ),
    ],
)
def test_our_own_lint_names_what_is_wrong(change: dict[str, Any], said: str) -> None:
    spoilt = replace(BY_NAME["AccountBalanceLow"], **change)
    assert any(said in fault for fault in faults([spoilt], AlertPlaces()))
    twice = [BY_NAME["BotStopped"]] * 2
    assert list(faults(twice, AlertPlaces())) == ["BotStopped: stands more than once"]


def test_names_are_read_out_of_expressions() -> None:
    assert names_in('label_replace(a == 1 unless on () b, "family", "x", "", "")') == {"a", "b"}
    assert names_in("c:d:e offset 15m and max_over_time(f[15m]) > 0") == {"c:d:e", "f"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_alert_leads_to_a_playbook_and_a_dashboard(rule: AlertRule) -> None:
    places = AlertPlaces(playbooks="https://desk.example/books", dashboards="https://g.example")
    told = annotations_of(rule, places)
    assert told["runbook_url"] == f"https://desk.example/books/{rule.name}.md"
    assert re.fullmatch(
        r"https://g\.example/d/liveops-(system|trading|model|pipeline)(\?viewPanel=\d+)?",
        told["dashboard_url"],
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_is_silent_without_readings_says_who_speaks_then(rule: AlertRule) -> None:
    named = set(re.findall(r"\b[A-Z][A-Za-z]+[A-Z][A-Za-z]+\b", rule.pair)) - {"NaN"}
    assert named <= set(BY_NAME)
    assert rule.pair


@pytest.mark.parametrize("rule", [r for r in RULES if r.drill.wrong], ids=lambda rule: rule.name)
def test_each_rule_is_asked_at_least_six_ways(rule: AlertRule) -> None:
    asked = {case.name for case in cases(rule)}
    assert asked >= {"wrong", "at the limit", "absent", "stale", "NaN", "right after wrong"}


def test_what_identifies_an_alert_is_what_inhibition_compares() -> None:
    told = {label for rule in RULES for label in rule.drill.labels}
    # These are parts of one thing; of replicas one critical alert tells of all.
    assert told - {"what", "route", "kind", "instance"} <= set(SCOPE)


def test_nothing_that_is_critical_can_mute_the_watchdog() -> None:
    assert receivers_of(Severity.INFO, Component.ALERTING) == ("watchdog",)
    about = {rule.component for rule in RULES if rule.severity is Severity.CRITICAL}
    assert Component.ALERTING not in about


def test_committed_files_are_what_default_settings_give() -> None:
    at = Directories(rules=ROOT / "alerts", dashboards=ROOT / "config")
    written = alerting_of(Settings()).files(at)
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, (
            f"prometheus_alerts --action generate: {path}"
        )
    assert set((ROOT / "config" / "grafana").iterdir()) < written.keys()


def test_the_page_is_a_fresh_render() -> None:
    page = ROOT / "docs" / "alerts.md"
    assert page.read_text(encoding="utf-8") == render(), "python -m alerts.rules_reference"


def test_a_check_tells_of_files_that_are_missing_or_edited(tmp_path: Path) -> None:
    alerting = alerting_of(Settings())
    nowhere = Directories(rules=tmp_path, dashboards=tmp_path)
    assert [fault.partition(": ")[2] for fault in check(alerting, nowhere).faults] == [
        "is not there; --action generate writes it"
    ] * 7
    made = Directories(rules=tmp_path / "rules", dashboards=tmp_path / "drawn")
    written = generate(alerting, made)
    assert check(alerting, made).faults == ()
    written[0].write_text(written[0].read_text().replace("< 1.6", "< 1.5"), encoding="utf-8")
    written[2].write_text("{}", encoding="utf-8")
    found = check(alerting, made).faults
    assert [Path(fault.partition(": ")[0]) for fault in found] == [written[0], written[2]]
    for fault in found:
        assert fault.endswith("is not what these settings give; --action generate writes it")


def test_programs_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerting = alerting_of(Settings())
    at = Directories(rules=tmp_path, dashboards=tmp_path)
    generate(alerting, at)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check(alerting, at)
    assert found.faults == ()
    assert found.not_asked == (
        "promtool is not on PATH (Debian package prometheus)",
        "amtool is not on PATH (Debian package prometheus-alertmanager)",
    )
    with pytest.raises(ProgramMissing, match=r"promtool is not on PATH \(Debian package prom"):
        run_tests(alerting)


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH (Debian package prometheus)")
    return found


@pytest.mark.real_part
def test_promtool_finds_nothing_to_complain_about_in_the_rules() -> None:
    path = ROOT / "alerts" / "prometheus_alerts.yml"
    asked = [promtool(), "check", "rules", "--lint=all", "--lint-fatal", str(path)]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.real_part
def test_rules_of_other_settings_do_what_they_say() -> None:
    """Those of the defaults do in tests/e2e/test_prometheus_alerts.py."""
    promtool()
    given = {
        "checklist": {"pf_throttle": 1.75, "drawdown_halt_percent": 5, "gpu_restart": 99.5},
        "risk": {"max_daily_loss": 0.05, "max_drawdown": 0.15},
        "operations": {"max_candle_gap_minutes": 30, "max_no_trade_hours": 5},
        "alert_rules": {
            "job": "desk-2",
            "win_rate_low": 0.4,
            "win_rate_hours": 24,
            "breaker_open_minutes": 10,
            "sharpe_low": 0,
            "down_minutes": 5,
            "disconnected_minutes": 0,
        },
    }
    assert run_tests(alerting_of(Settings.model_validate(given))).failures == ""


@pytest.mark.real_part
def test_promtool_tells_of_a_rule_that_does_not_do_what_it_says(tmp_path: Path) -> None:
    alerting = alerting_of(Settings())
    rule = BY_NAME["AccountBalanceLow"]
    spoilt = replace(rule, expression=rule.expression.replace("< 10", "< 9"))
    others = tuple(r for r in RULES if r.component is Component.ACCOUNT and r != rule)
    promtool()
    failures = run_tests(replace(alerting, rules=(spoilt, *others))).failures
    assert "name: AccountBalanceLow: wrong," in failures
    assert "DailyLossHigh:" not in failures


@pytest.mark.real_part
def test_of_a_service_that_is_well_only_the_watchdog_is_heard(tmp_path: Path) -> None:
    """The whole committed file at once, on what every rule takes for right."""
    write_tests(alerting_of(Settings()), tmp_path)
    series = {
        f'{name}{{job="liveops",instance="a"}}': value
        for name, value in {"up": "1", "liveops_up": "1", "liveops_health_level": "0"}.items()
    }
    for path in sorted(tmp_path.glob("*.test.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            if test["name"].endswith(": at the limit"):
                told = {s["series"]: s["values"].partition("x")[0] for s in test["input_series"]}
                series = told | series
    well = {"liveops_performance_guard_state": "0", "liveops_drift_encoder_kl": "0"}
    for name in series:
        series[name] = well.get(name.partition("{")[0], series[name])
    moment = {"eval_time": "20m", "expr": 'count by (alertname) (ALERTS{alertstate="firing"})'}
    sample = {"labels": '{alertname="Watchdog"}', "value": 1}
    whole = {
        "rule_files": [str(ROOT / "alerts" / "prometheus_alerts.yml")],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [
                    {"series": name, "values": f"{value}x50"} for name, value in series.items()
                ],
                "promql_expr_test": [{**moment, "exp_samples": [sample]}],
            }
        ],
    }
    test = tmp_path / "whole.yml"
    test.write_text(yaml.safe_dump(whole), encoding="utf-8")
    ran = subprocess.run(
        [promtool(), "test", "rules", str(test)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
