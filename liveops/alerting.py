"""Alert rules, routes and dashboards for the settings of a desk: written, checked, tested."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from alerts.alertmanager import render_alertmanager
from alerts.dashboard_files import dashboard_files
from alerts.limits import AlertLimits, AlertPlaces
from alerts.rule import AlertRule
from alerts.rule_files import dumped, faults, render_rules, rule_document
from alerts.rule_tests import cases, promtool_files
from alerts.rules import rules
from bandit.core.errors import BanditError
from bandit.core.health import HealthLimits
from config.settings import Settings
from liveops.whole_files import FileNotWritten, write_whole
from liveops.wiring import health_limits_of

RULES_FILE: Final = "prometheus_alerts.yml"
ALERTMANAGER_FILE: Final = "alertmanager.yml"
WEBHOOK: Final = "/v1/webhooks/alertmanager"

_SECONDS: Final = 300


class Program(StrEnum):
    """A program of Prometheus that is not ours."""

    PROMTOOL = "promtool"
    AMTOOL = "amtool"

    @property
    def package(self) -> str:
        """The Debian package that it comes in."""
        return {Program.PROMTOOL: "prometheus", Program.AMTOOL: "prometheus-alertmanager"}[self]


class ProgramMissing(BanditError):
    """A program that was asked for is not installed.

    >>> print(ProgramMissing(Program.PROMTOOL))
    promtool is not on PATH (Debian package prometheus)
    """

    code = "program_missing"

    def __init__(self, program: Program) -> None:
        super().__init__(f"{program} is not on PATH (Debian package {program.package})")
        self.program = program


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """Where the files lie: rules and routes, and the dashboards."""

    rules: Path
    dashboards: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerting:
    """The rules of a desk, where its alerts lead, and from where on its dashboards are red."""

    rules: tuple[AlertRule, ...]
    places: AlertPlaces
    limits: AlertLimits

    def files(self, at: Directories) -> dict[Path, str]:
        """Return what is written where."""
        drawn = dashboard_files(self.limits)
        return {at.rules / name: text for name, text in self.watching().items()} | {
            at.dashboards / name: text for name, text in drawn.items()
        }

    def watching(self) -> dict[str, str]:
        """Return what Prometheus and Alertmanager read, by name."""
        return {
            RULES_FILE: render_rules(self.rules, self.places),
            ALERTMANAGER_FILE: render_alertmanager(self.places),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is wrong with files, and who could not be asked."""

    faults: tuple[str, ...]
    not_asked: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTests:
    """What promtool's unit tests said: how many rules and cases, and in what words it failed."""

    rules: int
    cases: int
    failures: str


def alerting_of(settings: Settings) -> Alerting:
    """Return the alerting that these settings ask for."""
    places, limits = alert_places_of(settings), alert_limits_of(settings)
    return Alerting(rules=rules(limits, places), places=places, limits=limits)


def alert_limits_of(settings: Settings) -> AlertLimits:
    """Return the thresholds of the rules.

    >>> alert_limits_of(Settings()) == AlertLimits()
    True
    """
    checklist, risk, own = settings.checklist, settings.risk, settings.alert_rules
    health: HealthLimits = health_limits_of(settings)
    return AlertLimits(
        profit_factor=checklist.pf_throttle,
        profit_factor_trades=checklist.pf_window,
        drawdown_percent=checklist.drawdown_halt_percent,
        losing_streak=settings.performance_guard.losing_streak_threshold_reduced,
        win_rate=own.win_rate_low,
        win_rate_wait=timedelta(hours=own.win_rate_hours),
        sharpe=own.sharpe_low,
        sharpe_wait=timedelta(days=own.sharpe_days),
        balance=own.balance_low,
        daily_loss=risk.max_daily_loss,
        drawdown=risk.max_drawdown,
        api_errors=health.api_errors,
        api_error_window=health.api_error_window,
        candle_gap=health.candle_gap,
        no_trade=health.no_trade,
        heartbeat=health.heartbeat,
        disconnected_wait=timedelta(minutes=own.disconnected_minutes),
        breaker_wait=timedelta(minutes=own.breaker_open_minutes),
        down_wait=timedelta(minutes=own.down_minutes),
        encoder_kl=checklist.kl_refresh,
        gpu_percent=checklist.gpu_restart,
        data_sla=timedelta(minutes=settings.data.sla_minutes),
        state=health.backups.state,
        database=health.backups.database,
        drill=health.backups.drill,
        snapshot_age=timedelta(hours=settings.snapshots.stale_hours),
    )


def alert_places_of(settings: Settings) -> AlertPlaces:
    """Return where alerts come from and lead to.

    Alertmanager reaches the service at its admin listener, which stays free while bots crowd the
    public one.

    >>> alert_places_of(Settings()) == AlertPlaces()
    True
    """
    own, server = settings.alert_rules, settings.server
    host, port = server.admin_host, server.admin_port
    if port == 0:
        host, port = server.host, server.port
    webhook = f"http://{host}:{port}{WEBHOOK}"
    return AlertPlaces(
        job=own.job,
        playbooks=own.playbooks_url,
        dashboards=own.grafana_url,
        webhook_url=webhook,
        watchdog_url=own.watchdog_url or webhook,
        secrets_dir=own.secrets_dir,
        slack_channel=own.slack_channel,
        smtp_server=own.smtp_server,
        mail_from=own.mail_from,
        mail_to=own.mail_to,
    )


def generate(alerting: Alerting, at: Directories) -> list[Path]:
    """Write every file, and return them; raises `FileNotWritten` where one cannot be."""
    written = []
    for path, text in alerting.files(at).items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = f"{path.parent} was not made: {error.strerror or error}"
            raise FileNotWritten(said) from error
        write_whole(path, text.encode())
        written.append(path)
    return written


def check(alerting: Alerting, at: Directories) -> Checked:
    """Hold rules and files against our own rules and, where they are installed, both tools'."""
    found = list(faults(alerting.rules, alerting.places))
    missing: list[str] = []
    for path, text in alerting.files(at).items():
        there = path.read_text(encoding="utf-8") if path.is_file() else None
        if there is None:
            found.append(f"{path}: is not there; --action generate writes it")
            continue
        if there != text:
            found.append(f"{path}: is not what these settings give; --action generate writes it")
        try:
            found += _asked(path)
        except ProgramMissing as absent:
            missing.append(str(absent))
    return Checked(faults=tuple(found), not_asked=tuple(missing))


def _asked(path: Path) -> Iterator[str]:
    asked = {
        RULES_FILE: (Program.PROMTOOL, ["check", "rules", "--lint=all", "--lint-fatal"]),
        ALERTMANAGER_FILE: (Program.AMTOOL, ["check-config"]),
    }
    if path.name not in asked:  # a dashboard, which only Grafana reads
        return
    program, ways = asked[path.name]
    ran = _run(program, [*ways, str(path)])
    if ran.returncode != 0:
        yield f"{program}: {' '.join((ran.stdout + ran.stderr).split())}"


def run_tests(alerting: Alerting) -> RuleTests:
    """Run promtool's unit tests of every rule; raises `ProgramMissing` without promtool."""
    with tempfile.TemporaryDirectory(prefix="liveops-alerts-") as folder:
        files = write_tests(alerting, Path(folder))
        ran = _run(Program.PROMTOOL, ["test", "rules", *map(str, files)])
    return RuleTests(
        rules=len(alerting.rules),
        cases=sum(len(cases(rule)) for rule in alerting.rules),
        failures="" if ran.returncode == 0 else ran.stdout + ran.stderr,
    )


def write_tests(alerting: Alerting, folder: Path) -> list[Path]:
    """Write rules and tests as promtool reads them into `folder`, and return the tests."""
    groups = {}
    for group in rule_document(alerting.rules, alerting.places)["groups"]:
        path = folder / f"{group['name']}.rules.yml"
        path.write_text(dumped({"groups": [group]}), encoding="utf-8")
        groups[group["name"].removeprefix("liveops-")] = path
    tests = []
    for name, text in promtool_files(alerting.rules, alerting.places, groups).items():
        tests.append(folder / f"{name}.test.yml")
        tests[-1].write_text(text, encoding="utf-8")
    return tests


def _run(program: Program, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    found = shutil.which(program)
    if found is None:
        raise ProgramMissing(program)
    return subprocess.run(  # noqa: S603 - promtool or amtool, on files of ours
        [found, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
