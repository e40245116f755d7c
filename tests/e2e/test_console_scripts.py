"""Console scripts: what they print, what they exit with, on a real ledger."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import BIN, environment, script
from ledger import assign_to, closed, feed, open_btc, open_eth, record_all, register
from sqlalchemy import Engine, text

from bandit.service import experiments
from liveops.clock import SystemClock

CHALLENGER = "reinforcement_20250707_154526_eee02a74"


@pytest.fixture
def busy(engine: Engine) -> Engine:
    """An experiment whose challenger has earned more than its champion."""
    open_btc(engine, now=SystemClock().now().replace(microsecond=0))
    start = experiments.load(engine, "btc").opened_at
    feed(engine, CHALLENGER, ["0.002", "0.002", "-0.001"] * 10, now=start, prefix="c")
    feed(engine, "prod", ["0.001", "-0.001"] * 15, now=start, prefix="p")
    return engine


def monitor(url: str, *arguments: str) -> tuple[int, str, str]:
    answer = script("live_ops_monitor", *arguments, LIVEOPS_DATABASE_URL=url)
    return answer.returncode, answer.stdout, answer.stderr


def test_scaling_twice_in_a_night_changes_nothing_and_says_so(
    busy: Engine, database_url: str
) -> None:
    first = monitor(database_url, "--policy-sha", "eee02a74", "--mode", "scale", "--json")
    assert first[0] == 0, first[2]
    (night,) = json.loads(first[1])
    assert not night["already_done"]
    assert night["decision"]["kind"] == "RESCALE"
    code, said, _ = monitor(database_url, "--policy-sha", "eee02a74", "--mode", "scale")
    assert code == 0
    assert "was decided before; nothing changed" in said
    parts = {p.policy: p.ppm for p in experiments.load(busy, "btc").places}
    assert parts == {"prod": 850_000, CHALLENGER: 150_000}


def test_every_experiment_is_scaled_whatever_becomes_of_another(
    busy: Engine, database_url: str
) -> None:
    open_eth(busy)
    every = ("--mode", "scale", "--all", "--json")
    with busy.connect() as other:
        statement = text("SELECT id FROM experiments WHERE name = 'btc'")
        experiment = other.execute(statement).scalar_one()
        other.execute(text("SELECT pg_advisory_lock(2, :id)"), {"id": experiment})
        code, said, error = monitor(database_url, *every)
        other.execute(text("SELECT pg_advisory_unlock(2, :id)"), {"id": experiment})
    assert (code, [night["experiment"] for night in json.loads(said)]) == (3, ["eth"])
    assert "scaling btc: another process is at it now" in error
    code, said, _ = monitor(database_url, *every)
    done = {night["experiment"]: night["already_done"] for night in json.loads(said)}
    assert (code, done) == (0, {"btc": False, "eth": True})


def test_no_night_is_made_up_for_on_another_day(busy: Engine, database_url: str) -> None:
    asked = ("--mode", "scale", "--all", "--date", "2026-03-01", "--json")
    code, said, error = monitor(database_url, *asked)
    assert (code, json.loads(said)) == (0, [])
    assert "the night of 2026-03-01 is not decided now" in error
    with busy.connect() as connection:
        nights = text("SELECT count(*) FROM decisions WHERE trading_day IS NOT NULL")
        assert connection.execute(nights).scalar_one() == 0


def test_scaling_while_another_process_does_exits_3(busy: Engine, database_url: str) -> None:
    with busy.connect() as other:
        experiment = other.execute(text("SELECT id FROM experiments")).scalar_one()
        other.execute(text("SELECT pg_advisory_lock(2, :id)"), {"id": experiment})
        code, _, error = monitor(database_url, "--policy-sha", "eee02a74", "--mode", "scale")
        other.execute(text("SELECT pg_advisory_unlock(2, :id)"), {"id": experiment})
    assert code == 3
    assert "another process" in error


@pytest.mark.parametrize(
    ("reference", "hint"), [("ffffffff", CHALLENGER), ("no-such-policy", CHALLENGER)]
)
def test_unknown_policy_exits_2_and_lists_the_known(
    busy: Engine, database_url: str, reference: str, hint: str
) -> None:
    code, _, error = monitor(database_url, "--policy-sha", reference, "--mode", "report")
    assert code == 2
    assert hint in error


def test_ambiguous_prefix_exits_2_and_lists_the_candidates(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine, challengers=[("one", "eee00001"), ("two", "eee00002")])
    code, _, error = monitor(database_url, "--policy-sha", "eee", "--mode", "report")
    assert code == 2
    assert "one" in error
    assert "two" in error


def test_missing_option_exits_2(database_url: str) -> None:
    assert monitor(database_url, "--mode", "report")[0] == 2


def test_report_prints_checklist_and_valid_json(busy: Engine, database_url: str) -> None:
    code, said, _ = monitor(database_url, "--policy-sha", CHALLENGER, "--mode", "report", "--json")
    assert code == 0
    (report,) = json.loads(said)
    arm = next(arm for arm in report["arms"] if arm["policy"] == CHALLENGER)
    assert arm["pf_30"]["value"] == 4.0
    assert [row["metric"] for row in arm["checklist"]] == ["pf_challenger_30", "dd_challenger_pct"]
    assert all(row["verdict"] == "PASS" for row in arm["checklist"])
    code, table, _ = monitor(database_url, "--policy-sha", CHALLENGER, "--mode", "report")
    assert code == 0
    assert "pf_challenger_30" in table


def test_accounts_are_shown_and_a_killed_one_says_why(busy: Engine, database_url: str) -> None:
    def account(*arguments: str) -> str:
        answer = script("liveops", "account", *arguments, LIVEOPS_DATABASE_URL=database_url)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    assert "KILLED" not in account("list")
    now = experiments.load(busy, "btc").opened_at + timedelta(hours=1)
    [made] = assign_to(busy, "prod", 1, now=now, prefix="loser")
    record_all(busy, [closed(made, "-0.1", minutes=0, pnl="-400")], now=now)
    (listed,) = json.loads(account("list", "--json"))
    assert listed == json.loads(account("show", "usd", "--json"))
    assert (listed["name"], listed["killed"], listed["cause"]) == ("usd", True, "daily_loss")
    why = f"KILLED since {now:%Y-%m-%d %H:%M} by rule:loss_limit (daily_loss): "
    assert why in account("show", "usd")
    _, table, _ = monitor(database_url, "--policy-sha", CHALLENGER, "--mode", "report")
    assert why in table
    unknown = script("liveops", "account", "show", "eur", LIVEOPS_DATABASE_URL=database_url)
    assert unknown.returncode == 2
    assert "usd" in unknown.stderr


def test_halt_and_resume_by_hand(busy: Engine, database_url: str) -> None:
    arguments = ("--policy-sha", "eee02a74", "--reason", "looks wrong")
    halted = script("liveops", "halt", *arguments, LIVEOPS_DATABASE_URL=database_url)
    assert halted.returncode == 0, halted.stderr
    assert "is halted (0 % of traffic)" in halted.stdout
    again = script("liveops", "halt", *arguments, LIVEOPS_DATABASE_URL=database_url)
    assert "nothing changed" in again.stdout
    resumed = script("liveops", "resume", *arguments, LIVEOPS_DATABASE_URL=database_url)
    assert "is active (2 % of traffic)" in resumed.stdout
    champion = script(
        "liveops",
        "halt",
        "--policy-sha",
        "prod",
        "--reason",
        "x",
        LIVEOPS_DATABASE_URL=database_url,
    )
    assert champion.returncode == 1
    assert "champion" in champion.stderr
    shown = script("liveops", "decisions", "btc", LIVEOPS_DATABASE_URL=database_url)
    assert "looks wrong" in shown.stdout


def test_export_holds_every_outcome_exactly(
    busy: Engine, database_url: str, tmp_path: Path
) -> None:
    target = tmp_path / "export"
    answer = script("liveops", "ledger", "export", str(target), LIVEOPS_DATABASE_URL=database_url)
    assert answer.returncode == 0, answer.stderr
    outcomes = pq.read_table(target / "outcomes.parquet").to_pylist()
    assert len(outcomes) == 60
    assert {row["pnl"] for row in outcomes} == {
        "2.00000000",
        "1.00000000",
        "-1.00000000",
    }
    again = script("liveops", "ledger", "export", str(target), LIVEOPS_DATABASE_URL=database_url)
    assert again.returncode == 2


def test_evaluate_reads_a_trade_log(tmp_path: Path) -> None:
    log = tmp_path / "trades.csv.gz"
    with gzip.open(log, "wt", encoding="utf-8") as file:
        file.write("closed_at,pnl\n2024-01-01T00:00:00Z,30\n2024-01-02T00:00:00Z,-20\n")
    answer = script("liveops", "evaluate", str(log), "--starting-capital", "1000", "--json")
    assert answer.returncode == 0, answer.stderr
    numbers = json.loads(answer.stdout)
    assert numbers["profit_factor"]["value"] == 1.5
    bad = tmp_path / "bad.csv"
    bad.write_text("closed_at,pnl\n2024-01-01T00:00:00Z,NaN\n", encoding="utf-8")
    refused = script("liveops", "evaluate", str(bad))
    assert refused.returncode == 2
    assert "pnl" in refused.stderr


def test_gates_exit_1_unless_every_gate_passes(tmp_path: Path) -> None:
    header = "opened_at,closed_at,pnl,entry_value,worst_excursion\n"
    days = [f"2026-01-{day:02d}" for day in range(1, 31)]
    rows = [
        f"{day}T{hour:02d}:00:00Z,{day}T{hour:02d}:30:00Z,{pnl},1000,{depth}\n"
        for day in days
        for hour, (pnl, depth) in enumerate(((20 + int(day[-1]), 0.002), (-10, 0.012), (9, 0.002)))
    ]
    log, weaker = tmp_path / "candidate.csv", tmp_path / "champion.csv"
    log.write_text(header + "".join(rows), encoding="utf-8")
    weaker.write_text(header + "".join(rows[::3] + rows[1::3]), encoding="utf-8")
    asked = ("--profile", "strict", "--starting-capital", "10000")
    passed = script("liveops", "gates", str(log), *asked, "--baseline", str(weaker), "--json")
    assert (passed.returncode, passed.stderr) == (0, "")
    assert json.loads(passed.stdout)["verdict"] == "PASS"
    # The control, one thing at a time: no baseline, a deep position, a profile nobody has.
    alone = script("liveops", "gates", str(log), *asked)
    assert alone.returncode == 1
    assert "no baseline was given" in alone.stdout
    log.write_text(header + "".join(rows).replace("0.012", "0.3", 1), encoding="utf-8")
    deep = script("liveops", "gates", str(log), *asked, "--baseline", str(weaker), "--json")
    assert deep.returncode == 1
    assert json.loads(deep.stdout)["verdict"] == "FAIL"
    assert script("liveops", "gates", str(log), "--profile", "lenient").returncode == 2
    assert script("liveops", "gates", str(log)).returncode == 2


def test_config_show_says_what_is_not_in_force(tmp_path: Path) -> None:
    document = Path(__file__).resolve().parents[1] / "data" / "config_document.yaml"
    answer = script("liveops", "config", "show", "--json", "--config", str(document))
    assert answer.returncode == 0, answer.stderr
    rows = {row["key"]: row for row in json.loads(answer.stdout)}
    assert rows["risk.max_leverage"]["value"] == 2.0
    assert not rows["exchange.name"]["in_force"]
    assert rows["risk.max_leverage"]["in_force"]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("ramp:\n  min_tradez: 3\n", encoding="utf-8")
    refused = script("liveops", "config", "show", "--config", str(wrong))
    assert refused.returncode == 2
    assert "min_trades" in refused.stderr


def test_doctor_names_what_is_wrong(database_url: str) -> None:
    fine = script("liveops", "doctor", "--json", LIVEOPS_DATABASE_URL=database_url)
    levels = {row["check"]: row["level"] for row in json.loads(fine.stdout)}
    assert levels["ledger"] == "ok"
    assert levels["clocks"] == "ok"
    assert fine.returncode == 0
    away = script(
        "liveops", "doctor", LIVEOPS_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere"
    )
    assert away.returncode == 1
    assert "did not answer" in away.stdout


def test_reset_forgets_the_demo_only_when_told_so(tmp_path: Path) -> None:
    home = tmp_path / "var"
    assert script("liveops", "reset", home=home).returncode == 2
    nothing = script("liveops", "reset", "--demo", home=home)
    assert nothing.returncode == 1
    assert "there is no ledger" in nothing.stderr
    assert not home.exists(), "asking makes nothing"
    assert script("liveops", "db", "upgrade", "--demo", home=home).returncode == 0
    pictures = [home / name for name in ("replay.png", "replay.html")]
    for path in pictures:
        path.touch()
    answer = script("liveops", "reset", "--demo", home=home)
    assert answer.returncode == 0, answer.stderr
    assert not any(path.exists() for path in pictures)


def test_commands_that_overlap_share_one_server(tmp_path: Path) -> None:
    home = tmp_path / "var"
    assert script("liveops", "db", "upgrade", home=home).returncode == 0
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(script, "liveops", "policy", "list", home=home) for _ in range(8)]
    for answer in (future.result() for future in asked):
        assert answer.returncode == 0, answer.stderr


def test_help_loads_no_heavy_module() -> None:
    assert script("liveops", "--help").returncode == 0
    probe = (
        "import sys\n"
        "from liveops.cli import exit_code, app\n"
        "exit_code(app, ['--help'])\n"
        "heavy = {'sqlalchemy', 'pandas', 'fastapi', 'pydantic', 'numpy', 'psycopg'}\n"
        "heavy |= {'matplotlib'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


def test_a_policy_joins_an_experiment_and_again_changes_nothing(
    engine: Engine, database_url: str
) -> None:
    open_btc(engine)
    register(engine, "newcomer", "abcdef01")

    def add(*arguments: str) -> tuple[int, str, str]:
        answer = script(
            "liveops", "experiment", "add", "btc", *arguments, LIVEOPS_DATABASE_URL=database_url
        )
        return answer.returncode, answer.stdout, answer.stderr

    assert add("abcdef")[:2] == (0, "newcomer joins btc (live), 10 % of traffic\n")
    code, said, _ = add("newcomer", "--json")
    assert code == 0
    assert json.loads(said) == {
        "experiment": "btc",
        "policy": "newcomer",
        "mode": "live",
        "traffic_allocation": 0.1,
        "new": False,
    }
    assert add("newcomer", "--mode", "shadow")[0] == 1, "an arm keeps its mode"
    code, _, error = add("nobody")
    assert code == 2
    assert "newcomer" in error, "it says who is known"


def test_the_monitor_goes_on_until_it_is_stopped(
    busy: Engine, database_url: str, tmp_path: Path
) -> None:
    ways = ("--policy-sha", "eee02a74", "--mode", "continuous", "--interval", "1", "--json")
    command = [str(BIN / "live_ops_monitor"), *ways]
    more = environment(tmp_path, LIVEOPS_DATABASE_URL=database_url)
    with subprocess.Popen(command, env=more, stdout=subprocess.PIPE, text=True) as going:
        try:
            assert going.stdout is not None
            looks = [json.loads(going.stdout.readline()) for _ in range(2)]
            code, _, error = monitor(database_url, *ways)
        finally:
            going.terminate()
        assert going.wait(60) == 0
    assert [look["experiments"] for look in looks] == [["btc"], ["btc"]]
    assert looks[0]["at"] < looks[1]["at"]
    assert code == 3
    assert "another process is at it now" in error


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        (("--mode", "report", "--interval", "5"), "--interval: is for --mode continuous"),
        (("--mode", "scale", "--dry-run"), "--dry-run: is for --mode continuous"),
        (("--mode", "report", "--all"), "--all: is for --mode scale"),
        (("--mode", "report", "--date", "2026-03-01"), "--date: is for --mode scale"),
        (("--mode", "scale", "--all"), "--policy-sha: must not go with --all"),
        (("--mode", "continuous", "--html", "x.html"), "html: is for --mode report"),
    ],
)
def test_options_of_another_mode_are_refused(
    database_url: str, ways: tuple[str, ...], said: str
) -> None:
    code, _, error = monitor(database_url, "--policy-sha", "eee02a74", *ways)
    assert code == 2
    assert said in error
