"""What an operator reads, worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from api_service import service
from drift_runs import a_check, a_run, an_encoder_check
from fake_nvml import FakeNvml
from ledger import (
    CHALLENGER,
    NOON,
    UNGUARDED,
    arms,
    assign_to,
    change,
    closed,
    feed,
    join,
    open_btc,
    record_all,
    register,
)
from rich.console import Console
from sqlalchemy import Engine

from bandit.core.errors import UnknownName
from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmMode, PolicySha
from bandit.core.outcomes import declined
from bandit.core.profit_factor import profit_factor_interval
from bandit.service import drift, performance_guarding, reporting
from liveops.gpu import GpuWatch
from liveops.report import limit_warnings, render_report

DAY = timedelta(days=1)


def arm_json(engine: Engine, policy: str) -> dict[str, object]:
    made = reporting.report(engine, "btc").to_json()
    json.dumps(made, allow_nan=False)
    return next(arm for arm in made["arms"] if arm["policy"] == policy)


def test_arm_is_reported_under_the_words_of_the_glossary(engine: Engine) -> None:
    open_btc(engine)
    declining = assign_to(engine, CHALLENGER, 1, prefix="declined")
    record_all(engine, [declined(declining[0].id)], now=NOON)
    # At a tenth of the equity: 1, 1.03, 1.01, 1.02, 1.02.
    feed(engine, CHALLENGER, ["0.3", "-0.2", "0.1", "0"])
    found = arm_json(engine, CHALLENGER)
    expected = {
        "policy": CHALLENGER,
        "policy_sha": "eee02a74",
        "kind": "external",
        "role": "challenger",
        "status": "active",
        "status_reason": "opened with the experiment",
        "mode": "live",
        "traffic_allocation": 0.1,
        "joined_at": "2026-03-01T12:00:00+00:00",
        "outcomes": 5,
        "trades": 4,
        "wins": 2,
        "losses": 1,
        "expired": 0,
        "pnl": "200.00000000",
        "fees": "0.00000000",
        "win_rate": 0.5,
        "losing_streak": 0,
        "losing_streak_max": 1,
    }
    assert {key: found[key] for key in expected} == expected
    factor = {"state": "finite", "gross_profit": 0.4, "gross_loss": 0.2, "n": 4, "n_losses": 1}
    for name in ("profit_factor", "pf_30", "pf_150"):
        assert found[name] == {"value": 2.0, **factor}
    # No champion trade in the arm's window: nothing to compare with.
    assert found["pf_prod"]["state"] == "no_trades"
    fall = 100 * 0.02 / 1.03
    for name in ("drawdown_max_percent", "dd_30", "dd_150"):
        assert found[name] == pytest.approx(fall, rel=1e-12)
    assert found["drawdown_percent"] == pytest.approx(100 * 0.01 / 1.03, rel=1e-12)
    # Mean 0.05; squares 0.09 + 0.04 + 0.01 = 0.14, so the variance is (0.14 - 4 * 0.0025) / 3.
    sharpe = 0.05 / math.sqrt(0.13 / 3)
    assert found["trade_sharpe"] == {"value": pytest.approx(sharpe), "state": "finite"}
    assert found["sqn"] == {"value": pytest.approx(2 * sharpe), "state": "finite"}
    assert [row["metric"] for row in found["checklist"]] == [
        "pf_challenger_30",
        "dd_challenger_pct",
    ]


def test_profit_factors_have_intervals_where_there_are_trades_enough(engine: Engine) -> None:
    open_btc(engine)
    now = feed(engine, CHALLENGER, ["0.002", "-0.001"] * 20)
    few = arm_json(engine, "prod")
    assert few["pf_30_low"] == few["pf_150_high"] == {"value": None, "state": "no_trades"}
    found = arm_json(engine, CHALLENGER)
    expected = profit_factor_interval([0.002, -0.001] * 20)
    assert expected is not None
    assert found["pf_150_low"] == {"value": pytest.approx(expected.low), "state": "finite"}
    assert found["pf_150_high"] == {"value": pytest.approx(expected.high), "state": "finite"}
    assert found["pf_30_low"]["value"] < found["pf_150_low"]["value"] < 2
    feed(engine, "prod", ["0.001"] * 3, now=now, prefix="p")
    assert arm_json(engine, "prod")["pf_30_low"] == {"value": None, "state": "no_losses"}


def test_three_drawdowns_are_kept_apart(engine: Engine) -> None:
    open_btc(engine)  # 10,000 of capital
    day = 24 * 60
    mine, others = assign_to(engine, CHALLENGER, 2), assign_to(engine, "prod", 1, prefix="p")
    record_all(
        engine,
        [
            closed(others[0], "0.001", minutes=5, pnl="1000"),
            closed(mine[0], "0.01", minutes=10, pnl="100"),
            closed(mine[1], "-0.1", minutes=day, pnl="-210"),
        ],
        now=NOON + timedelta(days=2),
    )
    found = arm_json(engine, CHALLENGER)
    # Its own curve at a tenth of equity a trade; its money beside everybody's; the account.
    assert found["dd_150"] == pytest.approx(100 * 0.01 / 1.001)
    assert found["dd_contrib"] == found["dd_contrib_max"] == pytest.approx(100 * 210 / 11_100)
    assert arm_json(engine, "prod")["dd_contrib"] == 0
    account = reporting.report(engine, "btc").to_json()["dd_total"]
    assert account == pytest.approx(100 * 210 / 11_100)


def test_arm_without_trades_says_what_is_missing(engine: Engine) -> None:
    open_btc(engine)
    found = arm_json(engine, CHALLENGER)
    assert found["profit_factor"]["state"] == "no_trades"
    assert found["win_rate"] is None
    assert found["trade_sharpe"] == {"value": None, "state": "too_few"}
    assert found["sqn"] == {"value": None, "state": "too_few"}
    assert found["dd_150"] == 0
    champion = arm_json(engine, "prod")
    assert champion["pf_prod"] is None
    assert champion["checklist"] == []


@pytest.mark.parametrize("result", ["0.1", "123.456789012345"])
def test_equal_trades_have_no_sharpe(engine: Engine, result: str) -> None:
    open_btc(engine)
    made = assign_to(engine, CHALLENGER, 3)
    trades = [closed(a, result, minutes=i, pnl="1") for i, a in enumerate(made)]
    record_all(engine, trades, now=NOON + timedelta(hours=1))
    assert arm_json(engine, CHALLENGER)["trade_sharpe"] == {"value": None, "state": "no_spread"}


def test_daily_ratios_look_back_a_year_from_the_capital_of_its_beginning(engine: Engine) -> None:
    open_btc(engine)
    day = 24 * 60
    made = zip(assign_to(engine, CHALLENGER, 3), [1, 400, 401], ["1000", "-100", "50"], strict=True)
    trades = [
        closed(a, "0.1" if pnl[0] != "-" else "-0.1", minutes=d * day, pnl=pnl)
        for a, d, pnl in made
    ]
    record_all(engine, trades, now=NOON + timedelta(days=402))
    found = arm_json(engine, CHALLENGER)
    assert (found["days"], found["losing_days"]) == (2, 1)
    # 10,000 and the 1,000 earned more than a year ago: then 10,900, then 10,950.
    down, up = -100 / 11_000, 50 / 10_900
    sharpe = (down + up) / 2 / ((up - down) / math.sqrt(2)) * math.sqrt(365)
    assert found["sharpe_daily"] == {"value": pytest.approx(sharpe), "state": "finite"}
    sortino = (down + up) / 2 / math.sqrt(down**2 / 2) * math.sqrt(365)
    assert found["sortino_daily"] == {"value": pytest.approx(sortino), "state": "finite"}


def test_champion_is_compared_over_the_challengers_own_window_and_instruments(
    engine: Engine,
) -> None:
    open_btc(engine, rules=UNGUARDED)
    feed(engine, "prod", ["-0.05"] * 3, prefix="before")
    later = NOON + timedelta(hours=1)
    feed(engine, CHALLENGER, ["0.1", "-0.1"], now=later, prefix="c")
    feed(engine, "prod", ["0.2", "-0.1"], now=later, prefix="p")
    factor = arm_json(engine, CHALLENGER)["pf_prod"]
    assert (factor["value"], factor["n"]) == (2.0, 2)


def test_experiment_is_reported_with_its_newest_decisions(engine: Engine) -> None:
    open_btc(engine)
    change(engine, ArmVerb.THROTTLE)
    change(engine, ArmVerb.RESUME)
    made = reporting.report(engine, "btc", newest_decisions=2).to_json()
    assert {key: made[key] for key in made if key not in ("arms", "decisions")} == {
        "experiment": "btc",
        "champion": "prod",
        "succession": None,
        "capital": "10000.00000000",
        "currency": "USD",
        "account": "usd",
        "killed": False,
        "dd_total": 0.0,
        "equity_fraction": 0.1,
        "profile": "guarded",
        "strategy": "ramp",
        "allocation_version": 3,
        "epoch": 3,
        "exploration": None,
        "drawdown_limits": {
            setting: {
                "percent": percent,
                "healthy": None,
                "healthy_verdict": "INCONCLUSIVE",
                "sick": None,
                "sick_verdict": "INCONCLUSIVE",
            }
            for setting, percent in (
                ("ramp.drawdown_limit_percent", 3.0),
                ("checklist.drawdown_halt_percent", 4.0),
            )
        },
        "draws": None,
        "guards": [guard.to_json() for guard in performance_guarding.listed(engine)],
    }
    assert [arm["policy"] for arm in made["arms"]] == ["prod", CHALLENGER]
    assert [decision["kind"] for decision in made["decisions"]] == ["RESUME", "THROTTLE"]


def test_drawdown_limits_are_held_against_what_the_champion_does(engine: Engine) -> None:
    open_btc(engine, equity_fraction=1.0)
    feed(engine, "prod", ["0.02", "-0.012", "0.01", "-0.015"] * 40)
    report = reporting.report(engine, "btc")
    found = report.to_json()["drawdown_limits"]["checklist.drawdown_halt_percent"]
    assert (found["healthy_verdict"], found["sick_verdict"]) == ("FAIL", "PASS")
    said = " ".join(line.plain for line in limit_warnings(report))
    assert f"4: of arms as good as the champion {100 * found['healthy']:.0f} in 100 pass it" in said
    # At a hundredth of that nothing ever passes it.
    small = replace(report.record.experiment, equity_fraction=0.01)
    report = replace(report, record=replace(report.record, experiment=small))
    said = " ".join(line.plain for line in limit_warnings(report))
    assert "4: of arms that lose what the champion earns only 0 in 100 pass it" in said


def test_retired_arm_leaves_the_report_and_stopped_ones_stay(engine: Engine) -> None:
    open_btc(engine, challengers=arms(3))
    change(engine, ArmVerb.RETIRE, "arm-00")
    change(engine, ArmVerb.HALT, "arm-01")
    found = reporting.report(engine, "btc").to_json()["arms"]
    assert [(arm["policy"], arm["status"]) for arm in found] == [
        ("prod", "active"),
        ("arm-01", "halted"),
        ("arm-02", "active"),
    ]


def test_decisions_and_allocations_are_told_newest_and_oldest_first(engine: Engine) -> None:
    open_btc(engine)
    change(engine, ArmVerb.HALT, reason="drill")
    newest, oldest = reporting.decision_history(engine, "btc")
    made = reporting.decision_json(newest)
    json.dumps(made, allow_nan=False)
    expected = {
        "experiment": "btc",
        "kind": "HALT",
        "trading_day": None,
        "decided_at": "2026-03-01T12:00:00+00:00",
        "actor": "test",
        "reason": "drill",
        "profile": "guarded",
        "strategy": "ramp",
        "seed": None,
        "reasons": {},
        "allocation_version": 2,
    }
    assert {key: made[key] for key in expected} == expected
    assert reporting.decision_history(engine, "btc", newest=1) == [newest]
    assert oldest.version == 1
    assert reporting.allocation_json(reporting.allocation_history(engine, "btc")) == [
        {
            "version": 1,
            "created_at": "2026-03-01T12:00:00+00:00",
            "champion": "prod",
            "traffic_allocation": {"prod": 0.9, CHALLENGER: 0.1},
        },
        {
            "version": 2,
            "created_at": "2026-03-01T12:00:00+00:00",
            "champion": "prod",
            "traffic_allocation": {"prod": 1.0, CHALLENGER: 0.0},
        },
    ]


@pytest.mark.parametrize(
    "read", [reporting.report, reporting.decision_history, reporting.allocation_history]
)
def test_unknown_experiment_is_told_with_the_known_ones(engine: Engine, read: object) -> None:
    open_btc(engine)
    assert callable(read)
    with pytest.raises(UnknownName, match="no experiment is registered as 'eth'; known: btc"):
        read(engine, "eth")


def test_shadow_arm_is_reported_in_its_mode(engine: Engine) -> None:
    open_btc(engine, challengers=[])
    register(engine, *arms(1)[0])
    join(engine, "arm-00", ArmMode.SHADOW)
    assert arm_json(engine, "arm-00")["mode"] == "shadow"


def test_an_encoder_that_was_checked_has_its_row_of_the_checklist(engine: Engine) -> None:
    open_btc(engine)
    sha = PolicySha("eee02a74")
    drift.record(engine, a_run(an_encoder_check(0.1), sha=sha), now=NOON, actor="test")
    later = NOON + timedelta(days=1)
    worse = an_encoder_check(0.41, raw=1.11, null_median=0.7, null_p99=0.95)
    drift.record(engine, a_run(worse, sha=sha, hours=24), now=later, actor="test")
    # Of another artefact, and of what was checked without its encoder.
    drift.record(engine, a_run(hours=2), now=later, actor="test")
    drift.record(engine, a_run(a_check(), sha=sha, hours=30), now=later + DAY, actor="test")
    *_, row = arm_json(engine, CHALLENGER)["checklist"]
    assert (row["metric"], row["value"], row["limit"]) == ("encoder_kl_divergence", 0.41, 0.3)
    assert (row["flagged"], row["action"]) == (True, "refresh_encoder")
    assert row["note"] == "chance taken off; bars to 2026-03-02"
    assert arm_json(engine, "prod")["checklist"] == []
    out = StringIO()
    Console(file=out, width=120).print(render_report(reporting.report(engine, "btc")))
    assert "FAIL: refresh_encoder" in out.getvalue()


def test_the_machines_row_says_that_there_is_no_gpu_or_how_busy_it_is(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_btc(engine)
    gpus = GpuWatch()
    with service(engine, gpus=gpus) as client:
        [none] = client.get("/v1/experiments/btc/report").json()["machine"]
        FakeNvml().install(monkeypatch)
        gpus.look()
        [row] = client.get("/v1/experiments/btc/report").json()["machine"]
    assert (none["value"], none["verdict"]) == (None, "INCONCLUSIVE")
    assert none["note"] == "no GPU tells of itself here"
    assert (row["metric"], row["value"]) == ("gpu_util_pct", pytest.approx(7.0))
    assert (row["band"], row["limit"], row["flagged"]) == ([2.0, 10.0], 60.0, False)


def test_the_terminal_draws_what_each_arm_earned(engine: Engine) -> None:
    open_btc(engine)
    empty = StringIO()
    Console(file=empty, width=80).print(render_report(reporting.report(engine, "btc")))
    assert "money earned" not in empty.getvalue()
    feed(engine, CHALLENGER, ["0.3", "-0.2", "0.1"])
    out = StringIO()
    Console(file=out, width=80).print(render_report(reporting.report(engine, "btc")))
    [mine] = [line for line in out.getvalue().splitlines() if line.rstrip().endswith("+200.00")]
    assert mine.startswith(CHALLENGER[:20])
    assert "▁█" in mine, "it rose on the last day"
    assert max(map(len, out.getvalue().splitlines())) <= 80
