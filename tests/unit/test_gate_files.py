"""Promotion gates over files: healthy logs, logs with one defect, and over-fitted backtests."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bandit.core.errors import InvalidInput
from bandit.core.gates import GateProfile
from bandit.core.model import Verdict
from liveops.gates import GateReport, judge_file, render_gates

OVERFIT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "overfit_backtests"
CAPITAL = Decimal(10_000)
START = datetime(2026, 1, 1, tzinfo=UTC)
Row = dict[str, object]


def healthy(days: int = 60) -> list[Row]:
    """Four trades a day on 1,000 each: +20, -10, +14, -8; the losers stood little deeper.

    Profit factor 34 / 18 = 1.9, half of the trades win, the account never falls by 1 %. On every
    third day the first winner earns 26, so that daily returns differ.
    """
    rows: list[Row] = []
    for day in range(days):
        for hour, pnl in enumerate((26 if day % 3 == 0 else 20, -10, 14, -8)):
            opened = START + timedelta(days=day, hours=hour)
            rows.append(
                {
                    "opened_at": opened.isoformat(),
                    "closed_at": (opened + timedelta(minutes=30)).isoformat(),
                    "pnl": pnl,
                    "entry_value": 1000,
                    "worst_excursion": 0.012 if pnl < 0 else 0.004,
                    "forced_exit": "false",
                }
            )
    return rows


def modest() -> list[Row]:
    return [row | {"pnl": 5 if row["pnl"] == 14 else row["pnl"]} for row in healthy()]


def written(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def judged(
    folder: Path,
    rows: list[Row],
    *,
    profile: GateProfile = GateProfile.STANDARD,
    baseline: list[Row] | None = None,
    capital: Decimal | None = CAPITAL,
) -> GateReport:
    return judge_file(
        written(folder / "candidate.csv", rows),
        profile=profile,
        baseline=written(folder / "baseline.csv", baseline or modest()),
        starting_capital=capital,
    )


def open_or_failed(report: GateReport) -> dict[str, str]:
    reasons = report.judgement.reasons
    return {r.check: r.verdict.value for r in reasons if r.verdict is not Verdict.PASS}


def notes(report: GateReport) -> dict[str, str]:
    return {reason.check: reason.note for reason in report.judgement.reasons}


def test_healthy_log_passes_standard(tmp_path: Path) -> None:
    report = judged(tmp_path, healthy())
    assert open_or_failed(report) == {}
    assert report.judgement.verdict is Verdict.PASS


def test_healthy_log_that_wins_often_passes_strict(tmp_path: Path) -> None:
    often = [row | {"pnl": 2 if row["pnl"] == -8 else row["pnl"]} for row in healthy()]
    assert open_or_failed(judged(tmp_path, often, profile=GateProfile.STRICT)) == {}
    # The control: half the trades of the other one win, which strict does not take.
    half = judged(tmp_path, healthy(), profile=GateProfile.STRICT)
    assert open_or_failed(half) == {"win_rate": "FAIL"}


def changed(rows: list[Row], which: Callable[[int], bool], **cells: object) -> list[Row]:
    return [row | cells if which(n) else row for n, row in enumerate(rows)]


def one(n: int) -> bool:
    return n == 100


def last_winners(n: int) -> bool:
    """The better winner of each day of the last third."""
    return n >= 160 and n % 4 == 0


def rarely(n: int) -> bool:
    """All losses but 18, three in ten days."""
    return n % 4 == 3 or (n % 4 == 1 and n // 4 % 10 >= 3)


DEFECTS: dict[str, tuple[list[Row], dict[str, str]]] = {
    "a position held to -30 % and closed with a gain": (
        changed(healthy(), one, worst_excursion=0.3),
        {"worst_excursion_percent": "FAIL", "excursion_per_realised_loss": "FAIL"},
    ),
    "a position six times as deep as any loss taken": (
        changed(healthy(), one, worst_excursion=0.06),
        {"excursion_per_realised_loss": "FAIL"},
    ),
    "a position so large that it stood at a quarter of the account": (
        changed(healthy(), one, worst_excursion=0.04, entry_value=65_000),
        {"marked_drawdown_percent": "FAIL"},
    ),
    "a last third that loses": (
        changed(healthy(), last_winners, pnl=1),
        {"profit_factor_worst_block": "FAIL"},
    ),
    "hardly a loss taken": (
        changed(healthy(), rarely, pnl=1),
        {"losses_realised": "INCONCLUSIVE", "profit_factor": "INCONCLUSIVE"},
    ),
    "losses that only the end of the log took": (
        changed(healthy(), rarely, forced_exit="true"),
        {"losses_realised": "INCONCLUSIVE", "profit_factor": "INCONCLUSIVE"},
    ),
    "too few days": (
        [row | {"closed_at": row["opened_at"]} for row in healthy(13)],
        {"days": "INCONCLUSIVE"},
    ),
    "too few trades": (
        [row for n, row in enumerate(healthy()) if n % 4 < 2 and n < 96],
        {"trades": "INCONCLUSIVE"},
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_flips_the_gates_that_name_it_and_no_other(tmp_path: Path, defect: str) -> None:
    rows, flipped = DEFECTS[defect]
    assert open_or_failed(judged(tmp_path, rows)) == flipped


@pytest.mark.parametrize("column", ["worst_excursion", "entry_value", "opened_at"])
def test_log_without_marks_cannot_pass_and_says_what_is_missing(
    tmp_path: Path, column: str
) -> None:
    rows = [{name: cell for name, cell in row.items() if name != column} for row in healthy()]
    report = judged(tmp_path, rows)
    needs = {
        "worst_excursion": {"worst_excursion_percent", "excursion_per_realised_loss"},
        "entry_value": {"excursion_per_realised_loss"},
        "opened_at": set(),
    }[column] | {"marked_drawdown_percent"}
    assert open_or_failed(report) == dict.fromkeys(needs, "INCONCLUSIVE")
    told = f"{column} is missing for 240 of 240 trades"
    assert {note for check, note in notes(report).items() if check in needs} == {told}


def test_one_unmarked_trade_is_enough_to_know_nothing(tmp_path: Path) -> None:
    report = judged(tmp_path, changed(healthy(), one, worst_excursion=""))
    assert report.judgement.verdict is Verdict.INCONCLUSIVE
    told = "worst_excursion is missing for 1 of 240 trades"
    assert notes(report)["worst_excursion_percent"] == told


def test_realised_loss_deeper_than_the_excursion_told_counts(tmp_path: Path) -> None:
    # A log may say 0 for every excursion; its own losses say otherwise.
    rows = [row | {"worst_excursion": 0} for row in changed(healthy(), one, pnl=-250)]
    by_name = {r.check: r for r in judged(tmp_path, rows).judgement.reasons}
    assert by_name["worst_excursion_percent"].value == 25.0
    assert by_name["worst_excursion_percent"].verdict is Verdict.FAIL


def test_position_still_open_counts_at_its_mark(tmp_path: Path) -> None:
    last = healthy()[-1] | {"pnl": -2500, "entry_value": 10_000, "forced_exit": "true"}
    report = judged(tmp_path, [*healthy(), last])
    failed = {check for check, verdict in open_or_failed(report).items() if verdict == "FAIL"}
    assert {"drawdown_max_percent", "marked_drawdown_percent", "profit_factor"} <= failed


def test_without_capital_what_needs_it_is_open(tmp_path: Path) -> None:
    report = judged(tmp_path, healthy(), capital=None)
    needs = (
        "sharpe_daily",
        "drawdown_max_percent",
        "marked_drawdown_percent",
        "return_on_capital",
    )
    assert open_or_failed(report) == dict.fromkeys(needs, "INCONCLUSIVE")
    assert {notes(report)[check] for check in needs[:3]} == {"no starting capital"}


def test_empty_log_passes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("closed_at,pnl\n")
    for baseline in (None, path, written(tmp_path / "baseline.csv", healthy())):
        report = judge_file(
            path, profile=GateProfile.STANDARD, baseline=baseline, starting_capital=CAPITAL
        )
        verdicts = {reason.verdict for reason in report.judgement.reasons}
        assert verdicts == {Verdict.INCONCLUSIVE}


def test_baseline_counts_over_the_window_of_the_candidate(tmp_path: Path) -> None:
    # Before the candidate began the baseline lost what it had ever earned.
    before = [
        row
        | {
            "opened_at": (START - timedelta(days=n + 1)).isoformat(),
            "closed_at": (START - timedelta(days=n + 1)).isoformat(),
            "pnl": -100,
        }
        for n, row in enumerate(healthy()[:20])
    ]
    alone = judged(tmp_path, healthy(), baseline=healthy())
    assert open_or_failed(alone) == {"return_on_capital": "FAIL"}
    assert open_or_failed(judged(tmp_path, healthy(), baseline=before + healthy())) == {
        "return_on_capital": "FAIL"
    }


def test_baseline_that_covers_half_of_the_window_is_no_yardstick(tmp_path: Path) -> None:
    report = judged(tmp_path, healthy(), baseline=modest()[:120])
    assert open_or_failed(report) == {"return_on_capital": "INCONCLUSIVE"}
    assert notes(report)["return_on_capital"] == "the baseline covers 30 of 60 days"


def test_log_of_several_policies_is_refused(tmp_path: Path) -> None:
    rows = [row | {"policy": "ab"[n % 2]} for n, row in enumerate(healthy())]
    with pytest.raises(InvalidInput) as refused:
        judged(tmp_path, rows)
    assert (refused.value.field, refused.value.found) == ("candidate.csv", "a, b")


def test_report_is_strict_json_and_a_table(tmp_path: Path) -> None:
    report = judged(tmp_path, healthy(), capital=None)
    written_out = report.to_json()
    assert json.loads(json.dumps(written_out, allow_nan=False)) == written_out
    assert (written_out["trades_file"], written_out["profile"]) == ("candidate.csv", "standard")
    assert written_out["verdict"] == "INCONCLUSIVE"
    out = StringIO()
    Console(file=out, width=160).print(render_gates(report))
    lines = out.getvalue().splitlines()
    assert any("sharpe_daily" in line and "no starting capital" in line for line in lines)
    assert lines[-1] == "INCONCLUSIVE, profile standard, against baseline.csv"


def test_every_gate_is_defined_in_the_docs(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "definitions.md"
    text = page.read_text(encoding="utf-8")
    section = text[text.index("## Promotion gates") :]
    checks = notes(judged(tmp_path, healthy(), profile=GateProfile.STRICT))
    assert [check for check in checks if f"`{check}`" not in section] == []


# What an over-fitted backtest hides: hardly a loss realised, losers held, to between 26 % and 57 %.
HELD_TO = {
    "backtest-result-2024-09-05_21-59-25.json.gz": 26.7,
    "backtest-result-2024-09-06_13-01-15.json.gz": 41.3,
    "backtest-result-2024-09-07_10-46-44.json.gz": 41.3,
    "backtest-result-2024-09-07_15-54-11.json.gz": 44.1,
    "backtest-result-2024-09-07_15-58-46.json.gz": 57.0,
}


@pytest.mark.skipif(
    not OVERFIT.is_dir(), reason="the development data (../shared/data) is not beside this checkout"
)
@pytest.mark.parametrize("profile", list(GateProfile))
@pytest.mark.parametrize("name", HELD_TO)
def test_over_fitted_backtest_is_refused_for_what_is_wrong_with_it(
    tmp_path: Path, name: str, profile: GateProfile
) -> None:
    report = judge_file(OVERFIT / name, profile=profile, baseline=None, starting_capital=None)
    by_name = {reason.check: reason for reason in report.judgement.reasons}
    held = by_name["worst_excursion_percent"]
    assert report.judgement.verdict is Verdict.FAIL
    assert held.verdict is Verdict.FAIL
    assert HELD_TO[name] <= held.value < HELD_TO[name] + 0.1
    losses = by_name["losses_realised"]
    assert (losses.value, losses.verdict) == (0, Verdict.INCONCLUSIVE)
    assert by_name["profit_factor"].value > 500
    assert by_name["profit_factor"].verdict is Verdict.INCONCLUSIVE
    # What the usual numbers say of it: nothing at all.
    for flattered in ("trades", "days", "sharpe_daily", "drawdown_max_percent"):
        assert by_name[flattered].verdict is Verdict.PASS
