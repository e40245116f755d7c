"""The statements printed in the source documents run verbatim."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ledger import feed, open_btc
from sqlalchemy import Engine, make_url, text

from bandit.service import experiments

SEED_UPDATE = """
UPDATE bandit_arms
SET traffic_allocation = traffic_allocation * 1.5
WHERE policy_id = (
    SELECT id FROM policies WHERE name LIKE '%eee02a74%'
)
AND pf_150 >= pf_prod
AND dd_150 <= 3
AND traffic_allocation < 0.6;
"""
CHALLENGER = "reinforcement_20250707_154526_eee02a74"
WINNING = ["0.002", "0.002", "-0.001"] * 10
EVEN = ["0.001", "-0.001"] * 15


def psql(url: str, statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement as a person at psql would."""
    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql is not installed")
    parts = make_url(url)
    environment = {
        "PGHOST": str(parts.query.get("host") or parts.host or ""),
        "PGUSER": parts.username or "",
        "PGPASSWORD": parts.password or "",
        "PGDATABASE": parts.database or "",
        "PATH": "/usr/bin:/bin",
    }
    command = [program, "-X", "-v", "ON_ERROR_STOP=1", "-c", statement]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def traffic(engine: Engine) -> dict[str, int]:
    return {p.policy: p.ppm for p in experiments.load(engine, "btc").places}


def counts(engine: Engine) -> tuple[int, int, int]:
    statement = text(
        "SELECT (SELECT count(*) FROM allocations), (SELECT count(*) FROM audit_log),"
        " (SELECT epoch FROM experiments)"
    )
    with engine.connect() as connection:
        versions, audits, epoch = connection.execute(statement).one()
    return versions, audits, epoch


def better_challenger(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, WINNING, prefix="c")
    feed(engine, "prod", EVEN, prefix="p")


@pytest.mark.real_part
def test_seed_update_moves_traffic_from_the_champion_in_psql(
    engine: Engine, database_url: str
) -> None:
    better_challenger(engine)
    versions, audits, epoch = counts(engine)
    answer = psql(database_url, SEED_UPDATE)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "UPDATE 1"
    assert traffic(engine) == {"prod": 850_000, CHALLENGER: 150_000}
    assert counts(engine) == (versions + 1, audits + 1, epoch + 1)


@pytest.mark.real_part
def test_seed_update_over_the_cap_is_refused_by_name(engine: Engine, database_url: str) -> None:
    better_challenger(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE experiments SET unproven_cap_ppm = 140000"))
    before = counts(engine)
    answer = psql(database_url, SEED_UPDATE)
    assert answer.returncode != 0
    assert "limit unproven_cap" in answer.stderr
    assert "would hold 150000 ppm, limit 140000" in answer.stderr
    assert traffic(engine) == {"prod": 900_000, CHALLENGER: 100_000}
    assert counts(engine) == before


@pytest.mark.real_part
def test_second_seed_update_of_a_night_is_refused_by_name(
    engine: Engine, database_url: str
) -> None:
    better_challenger(engine)
    assert psql(database_url, SEED_UPDATE).returncode == 0
    answer = psql(database_url, SEED_UPDATE)
    assert answer.returncode != 0
    assert "limit once_a_night" in answer.stderr


def test_update_without_a_profit_factor_matches_no_arm(engine: Engine) -> None:
    open_btc(engine)
    with engine.begin() as connection:
        assert connection.execute(text(SEED_UPDATE)).rowcount == 0
    assert traffic(engine) == {"prod": 900_000, CHALLENGER: 100_000}


def test_too_few_champion_trades_are_no_comparison(engine: Engine) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, WINNING, prefix="c")
    feed(engine, "prod", EVEN[:29], prefix="p")
    with engine.begin() as connection:
        assert connection.execute(text(SEED_UPDATE)).rowcount == 0
        shown = connection.execute(text("SELECT pf_prod FROM bandit_arms WHERE pf_150 = 4.0"))
        assert shown.scalar_one() is None


@pytest.mark.parametrize(
    ("statement", "limit"),
    [
        ("traffic_allocation = 0.16 WHERE traffic_allocation = 0.1", "limit step_up"),
        ("traffic_allocation = 0.01 WHERE traffic_allocation = 0.1", "limit arm_minimum"),
        ("traffic_allocation = 0.8 WHERE traffic_allocation = 0.9", "limit champion"),
        ("traffic_allocation = 'NaN' WHERE traffic_allocation = 0.1", "traffic_allocation_check"),
        ("traffic_allocation = 1.5 WHERE traffic_allocation = 0.1", "traffic_allocation_check"),
    ],
)
def test_update_by_hand_keeps_the_limits(engine: Engine, statement: str, limit: str) -> None:
    open_btc(engine)
    with pytest.raises(Exception, match=limit), engine.begin() as connection:
        connection.execute(text(f"UPDATE bandit_arms SET {statement}"))
    assert traffic(engine) == {"prod": 900_000, CHALLENGER: 100_000}


def test_bandit_arms_shows_current_numbers(engine: Engine) -> None:
    better_challenger(engine)
    statement = text(
        "SELECT traffic_allocation, pf_150, pf_prod, dd_150, trades FROM bandit_arms"
        " WHERE pf_prod IS NOT NULL AND traffic_allocation < 0.5"
    )
    with engine.connect() as connection:
        row = connection.execute(statement).one()
    # 20 winners of 0.2 % against 10 losers of 0.1 %; the champion 15 of 0.1 % on either side, of
    # which the challenger's window, that begins at its first close, holds every one.
    assert float(row.traffic_allocation) == 0.1
    assert row.pf_150 == 4.0
    assert row.pf_prod == 1.0
    assert row.trades == 30
    # Deepest fall: one loss of 0.1 % on a tenth of the equity, from a peak just above 1.
    assert row.dd_150 == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM trades ORDER BY timestamp DESC LIMIT 10;",
        "SELECT * FROM performance_metrics ORDER BY date DESC LIMIT 5;",
        "SELECT * FROM parameter_history ORDER BY timestamp DESC LIMIT 10;",
        "SELECT * FROM optimization_runs ORDER BY timestamp DESC LIMIT 5;",
    ],
)
def test_selects_of_the_documents_run(engine: Engine, statement: str) -> None:
    better_challenger(engine)
    with engine.connect() as connection:
        connection.execute(text(statement)).all()


def test_documents_statement_is_the_one_tested() -> None:
    seeds = Path(__file__).resolve().parents[2].parent / "shared" / "seeds"
    if not seeds.is_dir():
        pytest.skip("the source documents are not beside this checkout")
    printed = (seeds / "001_2ff0ba44daa17e99.txt").read_text(encoding="utf-8")
    assert SEED_UPDATE.strip() in printed
