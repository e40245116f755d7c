"""`liveops kill` and `release`, with the ledger there and with the ledger gone."""

from __future__ import annotations

from pathlib import Path

import httpx
from commands import free_port, running, script, wait_for
from ledger import open_btc
from sqlalchemy import Engine

from bandit.service import killing

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def assign(port: int, unit: str) -> int:
    address = f"http://127.0.0.1:{port}/v1/experiments/btc/assignments"
    return httpx.post(address, json={"unit_id": unit, "instrument": "BTCUSD"}).status_code


def test_kill_and_release_reach_the_ledger_and_every_service_of_the_host(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    home, log, port = tmp_path / "var", tmp_path / "log", free_port()
    database = {"LIVEOPS_DATABASE_URL": database_url}
    with running("serve", "--port", str(port), home=home, log=log, **database) as service:
        wait_for("serving http", log, service)
        assert assign(port, "u") == 200
        done = script("liveops", "kill", "--reason", "fire", home=home, **database)
        assert (done.returncode, done.stdout.splitlines()) == (
            0,
            [f"latch {home / 'KILLED'} set", "account usd is killed"],
        )
        assert assign(port, "u") == 423
        doctor = script("liveops", "doctor", home=home, **database).stdout
        assert "warn  latch: latch set by cli:" in doctor
        assert ": fire: no decision is made until `liveops release` removes it" in doctor
        done = script(
            "liveops", "release", "--reason", "x", "--account", "usd", home=home, **database
        )
        assert done.returncode == 1
        assert "leave --account out" in done.stderr
        done = script("liveops", "release", "--reason", "fire is out", home=home, **database)
        assert (done.returncode, done.stdout.splitlines()) == (
            0,
            [f"latch {home / 'KILLED'} removed", "account usd is released"],
        )
        assert assign(port, "u") == 200
        # One account only: the ledger alone, no latch.
        arguments = ("--account", "usd", "--reason", "drill")
        assert script("liveops", "kill", *arguments, home=home, **database).returncode == 0
        assert not (home / "KILLED").exists()
        assert assign(port, "u") == 423


def test_kill_works_while_the_ledger_is_gone(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)
    home, log, port = tmp_path / "var", tmp_path / "log", free_port()
    with running(
        "serve", "--port", str(port), home=home, log=log, LIVEOPS_DATABASE_URL=database_url
    ) as service:
        wait_for("serving http", log, service)
        done = script(
            "liveops", "kill", "--reason", "fire", home=home, LIVEOPS_DATABASE_URL=NOWHERE
        )
        assert done.returncode == 0
        assert "the ledger could not be told" in done.stderr
        assert assign(port, "u") == 423
        one = script(
            *("liveops", "kill", "--reason", "fire", "--account", "usd"),
            home=home,
            LIVEOPS_DATABASE_URL=NOWHERE,
        )
        assert one.returncode == 1
        # The service tells the ledger what the file told it, and with it every other host.
        wait_for("account killed by the latch", log, service)
    assert [account.is_killed for account in killing.states(engine)] == [True]


def test_demo_has_a_latch_of_its_own(tmp_path: Path) -> None:
    home = tmp_path / "var"
    script("liveops", "kill", "--demo", "--reason", "x", home=home, LIVEOPS_DATABASE_URL=NOWHERE)
    assert [path.name for path in home.iterdir()] == ["KILLED.demo"]
