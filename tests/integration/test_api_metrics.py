"""What Prometheus sees at /metrics."""

from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
import pytest
from api_service import service
from drift_runs import SHA, a_check, a_run, an_encoder_check
from fake_nvml import WHOLE, FakeNvml
from ledger import NIGHT, NOON, UNGUARDED, assign, feed, open_btc, scale, set_budget
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import Engine
from told_ledger import CHALLENGER, told_service
from vitals import beat

from alerts.catalogue import CATALOGUE
from bandit.core.drift import DriftMetric
from bandit.core.heartbeat import BreakerState
from bandit.core.limits import Limits
from bandit.core.model import Verdict
from bandit.core.optimization import TrialCounts
from bandit.core.reading import ChecklistRule, Rules
from bandit.service import (
    auditing,
    drift,
    health,
    job_runs,
    optimizing,
)
from bandit.storage.engine import connect
from liveops.clock import VirtualClock
from liveops.gpu import GpuWatch
from liveops.metrics import FRESH

OWN = {name for metric in CATALOGUE if metric.is_own for name in metric.series}
PLACE = {"experiment": "btc", "policy": CHALLENGER, "role": "challenger"}


def scraped(client: httpx.Client) -> list[Sample]:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return [s for family in text_string_to_metric_families(response.text) for s in family.samples]


def of_ledger(samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.name not in OWN]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    (found,) = [s.value for s in samples if s.name == name and s.labels == labels]
    return found


def test_the_challengers_numbers_stand_under_both_names(engine: Engine) -> None:
    open_btc(engine, rules=UNGUARDED)
    # 20 wins of 3 % and 10 losses of 2 %, one loss last: factor 60 / 20, equity fraction 0.1.
    now = feed(engine, CHALLENGER, ["0.03"] * 20 + ["-0.02"] * 10)
    now = feed(engine, "prod", ["0.02", "-0.01"] * 20, now=now, prefix="p")
    with service(engine, clock=VirtualClock(now)) as client:
        seen = scraped(client)

    assert value(seen, "liveops_up") == 1
    assert value(seen, "liveops_allocation_version", experiment="btc") == 1
    assert value(seen, "liveops_experiment_epoch", experiment="btc") == 1
    assert value(seen, "liveops_arm_traffic_ratio", **PLACE) == 0.1
    assert value(seen, "traffic_allocation", **PLACE) == 0.1
    for window in ("30", "150", "all"):
        factor = value(seen, "liveops_arm_profit_factor", **PLACE, window=window)
        assert factor == pytest.approx(3.0)
    for window in ("150", "all"):
        # The curve rises to 1.06 and falls by 0.02.
        drawdown = value(seen, "liveops_arm_drawdown_ratio", **PLACE, window=window)
        assert drawdown == pytest.approx(0.02 / 1.06)
    assert value(seen, "pf_challenger_30", **PLACE) == pytest.approx(3.0)
    assert value(seen, "pf_150", **PLACE) == pytest.approx(3.0)
    assert value(seen, "dd_challenger_pct", **PLACE) == pytest.approx(2 / 1.06)
    assert value(seen, "dd_150", **PLACE) == pytest.approx(2 / 1.06)
    assert value(seen, "pf_prod", **PLACE) == pytest.approx(2.0)
    assert value(seen, "liveops_arm_champion_profit_factor", **PLACE) == pytest.approx(2.0)
    assert value(seen, "liveops_arm_win_ratio", **PLACE) == pytest.approx(2 / 3)
    assert value(seen, "liveops_arm_losing_streak", **PLACE) == 10
    assert value(seen, "liveops_arm_pnl", **PLACE) == pytest.approx(400.0)

    counted = {"experiment": "btc", "policy": CHALLENGER}
    assert value(seen, "liveops_arm_trades_total", **counted) == 30
    assert value(seen, "liveops_arm_losses_total", **counted) == 10
    statuses = {
        s.labels["status"]: s.value
        for s in seen
        if s.name == "liveops_arm_status" and s.labels["policy"] == CHALLENGER
    }
    assert statuses == {"active": 1, "throttled": 0, "halted": 0}


def test_the_champion_has_no_challengers_numbers(engine: Engine) -> None:
    open_btc(engine)
    now = feed(engine, "prod", ["0.02", "-0.01"])
    with service(engine, clock=VirtualClock(now)) as client:
        names = {s.name for s in scraped(client) if s.labels.get("policy") == "prod"}
    assert "pf_150" in names
    assert not names & {"pf_challenger_30", "dd_challenger_pct", "pf_prod"}


def test_exactly_the_catalogue_is_exposed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with told_service(engine, monkeypatch) as client:
        samples = scraped(client)
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    documented = {name: set(labels) for m in CATALOGUE for name, labels in m.series.items()}
    assert {s.name: set(s.labels) for s in samples} == documented
    kinds = {m.name.removesuffix("_total"): m.kind.value for m in CATALOGUE}
    assert {f.name: f.type for f in families if f.name in kinds} == kinds
    helps = {m.name.removesuffix("_total"): m.help for m in CATALOGUE}
    assert {f.name: f.documentation for f in families if f.name in helps} == helps


def test_evidence_is_told_once_a_night_has_looked_at_it(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        before = {s.name for s in scraped(client)}
    told = {"liveops_arm_rung", "liveops_arm_evidence", "liveops_arm_decay_days"}
    assert not before & told
    scale(engine)
    with service(engine, clock=VirtualClock(NIGHT)) as client:
        found = [s for s in scraped(client) if s.name in told]
    assert {s.labels["policy"] for s in found} == {CHALLENGER}
    rungs = {s.labels["rung"]: s.value for s in found if "rung" in s.labels}
    assert rungs == {"unproven": 1.0, "proven": 0.0, "eligible": 0.0}
    forms = {s.labels["form"]: s.value for s in found if "form" in s.labels}
    assert forms == {"mean": 0.0, "against": 0.0, "profit_factor": 0.0}
    # No hold-out: nobody asks for the champion's.
    assert {s.labels["of"]: s.value for s in found if "of" in s.labels} == {"arm": 0.0}


def test_an_exploration_budget_is_told_as_it_is_used(engine: Engine) -> None:
    open_btc(engine, limits=Limits(start_ppm=250_000))
    set_budget(engine, "1000", at_risk="100")
    with service(engine, clock=VirtualClock(NOON)) as client:
        before = scraped(client)
    made = assign(engine, [f"u-{i}" for i in range(10)])
    with service(engine, clock=VirtualClock(NOON)) as client:
        after = scraped(client)
    n = sum(a.policy == CHALLENGER for a in made)
    assert n > 0
    for seen, taken in ((before, 0), (after, n)):
        assert value(seen, "liveops_exploration_used_ratio", experiment="btc") == taken / 10
        assert value(seen, "liveops_exploration_room", experiment="btc") == 10 - taken


def test_an_unknown_value_is_an_absent_series(engine: Engine) -> None:
    open_btc(engine)
    with service(engine) as client:
        fresh = {s.name for s in scraped(client)}
    assert not fresh & {"pf_challenger_30", "pf_150", "pf_prod", "liveops_arm_win_ratio"}

    now = feed(engine, CHALLENGER, ["0.02"] * 3)
    with service(engine, clock=VirtualClock(now)) as client:
        winning = scraped(client)
    names = {s.name for s in winning}
    assert not names & {"pf_challenger_30", "pf_150", "liveops_arm_profit_factor"}
    assert "liveops_arm_win_ratio" in names
    assert all(math.isfinite(s.value) for s in winning)


def test_audit_rows_are_counted_until_they_are_sealed(engine: Engine) -> None:
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        open_btc(engine)
        assert value(scraped(client), "liveops_audit_unsealed_rows") == 3
        auditing.seal(engine, now=NOON)
        clock.advance_to(NOON + FRESH)
        assert value(scraped(client), "liveops_audit_unsealed_rows") == 0


def test_gpus_are_told_of_also_without_a_ledger(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeNvml().install(monkeypatch)
    gpus, nowhere = GpuWatch(), connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with service(nowhere, gpus=gpus) as client:
        assert not [s for s in scraped(client) if "gpu" in s.name]
        gpus.look()
        seen = scraped(client)
    gpu = {"gpu": "0", "model": WHOLE.model}
    assert value(seen, "liveops_up") == 0
    assert value(seen, "gpu_util_pct", **gpu) == pytest.approx(7.0)
    assert value(seen, "liveops_gpu_busy_ratio", **gpu) == WHOLE.busy_ratio
    assert value(seen, "liveops_gpu_memory_used_bytes", **gpu) == WHOLE.memory_used_bytes
    assert value(seen, "liveops_gpu_memory_bytes", **gpu) == WHOLE.memory_total_bytes
    assert value(seen, "liveops_gpu_temperature_celsius", **gpu) == WHOLE.temperature_celsius


def test_drift_is_told_of_each_artefact(engine: Engine) -> None:
    checks = (
        a_check("rsi", verdict=Verdict.FAIL, detail={"level": "warning"}),
        a_check("rsi", metric=DriftMetric.KS, verdict=Verdict.FAIL, detail={"level": "warning"}),
        a_check("macd", verdict=Verdict.FAIL, detail={"level": "critical"}),
        a_check("adx"),
        an_encoder_check(0.41, limit=0.30, raw=1.11, null_median=0.70, null_p99=0.95),
    )
    drift.record(engine, a_run(*checks), now=NOON, actor="test")
    with service(engine, clock=VirtualClock(NOON + timedelta(hours=2))) as client:
        seen = scraped(client)
    artifact = {"artifact": SHA}
    parts = {s.labels["part"]: s.value for s in seen if s.name == "liveops_drift_encoder_kl"}
    assert parts == {
        "calibrated": 0.41,
        "limit": 0.30,
        "raw": 1.11,
        "null_median": 0.70,
        "null_p99": 0.95,
    }
    assert value(seen, "encoder_kl_divergence", **artifact) == 0.41
    assert value(seen, "liveops_drift_encoder_rows_effective", **artifact) == 20.5
    assert value(seen, "liveops_drift_features", **artifact) == 2
    assert value(seen, "liveops_drift_age_seconds", **artifact) == 7200
    verdicts = {"FAIL": 3, "PASS": 2, "INCONCLUSIVE": 0}
    for verdict, n in verdicts.items():
        assert value(seen, "liveops_drift_verdicts", **artifact, verdict=verdict) == n
    broken = {
        (s.labels["check"], s.labels["level"]): s.value
        for s in seen
        if s.name == "liveops_drift_broken_checks"
    }
    told = [("psi", 1, 1), ("ks", 1, 0), ("encoder_kl", 0, 0)]
    assert broken == {
        (check, level): n
        for check, *counts in told
        for level, n in zip(("warning", "critical"), counts, strict=True)
    }


def test_an_encoder_that_could_not_be_checked_has_no_kl(engine: Engine) -> None:
    unknown = replace(
        an_encoder_check(0.1), value=None, limit=None, verdict=Verdict.INCONCLUSIVE, detail={}
    )
    drift.record(engine, a_run(unknown), now=NOON, actor="test")
    with service(engine, clock=VirtualClock(NOON)) as client:
        seen = scraped(client)
    assert value(seen, "liveops_drift_verdicts", artifact=SHA, verdict="INCONCLUSIVE") == 1
    names = {s.name for s in seen}
    assert not names & {"encoder_kl_divergence", "liveops_drift_encoder_kl"}


def test_an_artefact_that_is_checked_no_more_disappears_after_a_month(engine: Engine) -> None:
    drift.record(engine, a_run(), now=NOON, actor="test")
    for days, told in ((30, True), (31, False)):
        with service(engine, clock=VirtualClock(NOON + timedelta(days=days))) as client:
            names = {s.name for s in scraped(client)}
        assert ("liveops_drift_age_seconds" in names) is told


def test_jobs_are_told_of_once_they_were_begun(engine: Engine) -> None:
    def ended(job: str, slot: datetime, *, succeeded: bool) -> None:
        run = job_runs.claim(engine, job, slot, now=slot, actor="test")
        assert run is not None
        over = slot + timedelta(minutes=5)
        job_runs.finish(engine, run, succeeded=succeeded, result="x", now=over, actor="test")

    before = NIGHT - timedelta(days=1)
    ended("data", before, succeeded=True)
    ended("data", NIGHT, succeeded=False)
    ended("maintenance.purge", NIGHT, succeeded=True)  # a part of a job, with slots of its own
    job_runs.claim(engine, "rotation", NIGHT, now=NIGHT, actor="test")
    # The data of tonight have until four, the rotation that waits for them until ten.
    with service(engine, clock=VirtualClock(NIGHT + timedelta(hours=3))) as client:
        found = scraped(client)
    told = {(s.name, s.labels["name"]): s.value for s in found if s.name.startswith("liveops_job_")}
    success = "liveops_job_last_success_timestamp_seconds"
    assert told == {
        (success, "data"): (before + timedelta(minutes=5)).timestamp(),
        (success, "maintenance.purge"): (NIGHT + timedelta(minutes=5)).timestamp(),
        ("liveops_job_last_duration_seconds", "data"): 300,
        ("liveops_job_last_duration_seconds", "maintenance.purge"): 300,
        ("liveops_job_last_run_failed", "data"): 1,
        ("liveops_job_last_run_failed", "maintenance.purge"): 0,
        ("liveops_job_overdue_seconds", "data"): 3600,
        ("liveops_job_overdue_seconds", "rotation"): 0,
    }
    with service(engine, clock=VirtualClock(NIGHT + timedelta(days=1))) as client:
        late = [s for s in scraped(client) if s.name == "liveops_job_overdue_seconds"]
    assert {s.labels["name"]: s.value for s in late}["rotation"] == 16 * 3600


def test_the_newest_sweep_is_told_with_what_is_open(engine: Engine) -> None:
    for study, now in (("tune_20260301", NOON), ("tune_20260308", NOON + timedelta(days=7))):
        optimizing.begin(engine, study, trials=10, asked={}, now=now, actor="test")
    ended = TrialCounts(complete=3, pruned=2, failed=1)
    optimizing.follow(
        engine,
        "tune_20260308",
        counts=ended,
        best_value=-0.25,
        parameters={},
        now=NOON + timedelta(days=7, hours=1),
    )
    with service(engine, clock=VirtualClock(NOON + timedelta(days=7, hours=2))) as client:
        seen = scraped(client)
    states = {s.labels["state"]: s.value for s in seen if s.name == "liveops_sweep_trials"}
    assert states == {"complete": 3, "pruned": 2, "failed": 1, "open": 4}
    assert value(seen, "liveops_sweep_best_value") == -0.25
    assert value(seen, "liveops_sweep_age_seconds") == 3600


def test_bots_and_their_candles_are_told(engine: Engine) -> None:
    late, later = NOON - timedelta(minutes=20), NOON - timedelta(minutes=30)
    told = beat(
        candles={"BTCUSDT": late, "ETHUSDT": NOON},
        api_errors_total=2,
        open_positions=3,
        breakers={"orders": BreakerState.OPEN, "data": BreakerState.CLOSED},
    )
    for each in (told, beat("beta", candles={"BTCUSDT": later}, api_connected=False)):
        health.hear(engine, each, now=NOON, window=timedelta(minutes=10))
    gone = beat("gone", running=False, candles={"SOLUSDT": NOON})
    health.hear(engine, gone, now=NOON, window=timedelta(minutes=10))
    with service(engine, clock=VirtualClock(NOON + timedelta(seconds=30))) as client:
        seen = scraped(client)
    assert value(seen, "liveops_health_level") == 2
    assert value(seen, "trading_halted") == value(seen, "liveops_trading_halted") == 0
    assert value(seen, "liveops_bot_heartbeat_age_seconds", bot="alpha") == 30
    assert value(seen, "liveops_bot_breakers_open", bot="alpha") == 1
    assert value(seen, "open_positions", bot="alpha") == 3
    running = {s.labels["bot"]: s.value for s in seen if s.name == "bot_running"}
    assert running == {"alpha": 1, "beta": 1, "gone": 0}
    assert value(seen, "api_connected", bot="beta") == 0
    gaps = {s.labels["symbol"]: s.value for s in seen if s.name == "liveops_candle_gap_seconds"}
    assert gaps == {"BTCUSDT": 1830, "ETHUSDT": 30}


def test_of_very_many_symbols_the_longest_gaps_are_told(engine: Engine) -> None:
    for n, bot in enumerate(("alpha", "beta")):
        candles = {f"S{n}-{i}": NOON - timedelta(seconds=i) for i in range(64)}
        told = beat(bot, candles=candles)
        health.hear(engine, told, now=NOON, window=timedelta(minutes=10))
    with service(engine) as client:
        seen = [s for s in scraped(client) if s.name == "liveops_candle_gap_seconds"]
    assert len(seen) == 64
    assert min(s.value for s in seen) == 32


def test_equal_windows_are_one_series(engine: Engine) -> None:
    open_btc(engine, rules=Rules(checklist=ChecklistRule(window=50, long_window=50)))
    now = feed(engine, CHALLENGER, ["0.02", "-0.01"])
    with service(engine, clock=VirtualClock(now)) as client:
        windows = [
            s.labels["window"] for s in scraped(client) if s.name == "liveops_arm_profit_factor"
        ]
    assert windows == ["50", "all"]


def test_scrapes_within_half_a_second_share_one_reading(engine: Engine) -> None:
    clock = VirtualClock(NOON)
    with service(engine, clock=clock) as client:
        empty = scraped(client)
        open_btc(engine)
        clock.advance_to(NOON + FRESH - timedelta(microseconds=1))
        assert of_ledger(scraped(client)) == of_ledger(empty)
        clock.advance_to(NOON + FRESH)
        assert len(scraped(client)) > len(empty)


def test_a_ledger_that_is_away_is_a_zero_and_nothing_else() -> None:
    with service(connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")) as client:
        seen = scraped(client)
    assert [(s.name, s.value) for s in of_ledger(seen)] == [("liveops_up", 0.0)]


def test_a_ledger_of_other_rules_still_tells_its_numbers(engine: Engine) -> None:
    open_btc(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE decision_protocol SET version = version + 1")
    with service(engine) as client:
        seen = scraped(client)
    assert (value(seen, "liveops_up"), value(seen, "liveops_health_level")) == (1, 2)
    assert value(seen, "total_equity", account="usd") == 10_000
    assert "trading_halted" not in {s.name for s in seen}


def test_openmetrics_is_spoken_to_those_who_ask(engine: Engine) -> None:
    open_btc(engine)
    now = feed(engine, CHALLENGER, ["0.02", "-0.01"])
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with service(engine, clock=VirtualClock(now)) as client:
        response = httpx.get(client.base_url.join("/metrics"), headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert "liveops_arm_trades" in {f.name for f in parse_openmetrics(response.text)}


@pytest.mark.real_part
def test_promtool_finds_nothing_to_complain_about(engine: Engine) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian package prometheus)")
    open_btc(engine)
    now = feed(engine, CHALLENGER, ["0.02", "-0.01"])
    with service(engine, clock=VirtualClock(now)) as client:
        text = client.get("/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
