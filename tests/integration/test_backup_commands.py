"""`liveops backup` and what `liveops doctor` says of it, as a person types them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backed_up import live
from sqlalchemy import Engine, make_url

from bandit.service import backups as service
from bandit.service import killing
from bandit.service.ledger import ledger_digest
from bandit.storage.engine import connect
from liveops import cli
from snapshots import backup_files
from snapshots.backup_files import METADATA

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def run(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """Type a command on a ledger that lived; its exit code, its JSON, and what else it said."""
    live(engine)
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def typed(*words: str) -> tuple[int, Any, str]:
        capfd.readouterr()
        code = cli.exit_code(cli.app, [*words, "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out) if out else None, err

    return typed


def test_a_backup_is_taken_listed_verified_and_restored(
    run: Run, engine: Engine, empty_url: str
) -> None:
    code, told, _ = run("backup", "take")
    assert code == 0
    [made] = told["done"]
    assert run("backup", "list")[1] == [made]
    assert run("backup", "verify", "latest")[1] == {"done": [made]}
    # As people write it: without the driver.
    into = make_url(empty_url).set(drivername="postgresql").render_as_string(hide_password=False)
    code, told, said = run("backup", "restore", made["name"], "--into", into)
    assert (code, told["done"], told["backup"]) == (0, True, made["name"])
    assert "every account is killed" in said
    other = connect(empty_url)
    assert ledger_digest(other) == ledger_digest(engine)
    other.dispose()


def test_a_dry_run_says_what_would_happen_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, told, _ = run("backup", "take", "--kind", "state", "--dry-run")
    assert (code, len(told["would"])) == (0, 2)
    assert sorted(tmp_path.rglob("*")) == before
    today = ("--date", "2026-01-01")
    assert run("backup", "take", "--kind", "state", *today)[1]["done"]
    assert run("backup", "take", "--kind", "state", *today)[1]["done"] == []
    assert run("backup", "take", "--kind", "state", *today, "--dry-run")[1] == {"would": []}


def test_a_base_that_needs_an_archive_is_left_out_where_there_is_none(run: Run) -> None:
    base = ("backup", "take", "--kind", "base")
    code, told, _ = run(*base, "--if-archived", "--date", "2026-01-01")
    assert (code, told["done"]) == (0, [])
    assert "files and log of a server of your own" in told["why_not"]
    assert run(*base, "--if-archived", "--dry-run")[1]["would"] == []
    assert run(*base)[0] == 1, "and a person who asks for it is told that it cannot be"


def test_a_state_backup_stops_the_ledger_that_is_there(run: Run, engine: Engine) -> None:
    [made] = run("backup", "take", "--kind", "state")[1]["done"]
    assert run("backup", "restore", made["name"], "--dry-run")[0] == 0
    assert not killing.states(engine)[0].is_killed
    assert run("backup", "restore", made["name"])[0] == 0
    assert killing.states(engine)[0].is_killed


def test_exit_codes_say_what_went_wrong(run: Run, engine: Engine, tmp_path: Path) -> None:
    assert run("backup", "verify", "latest")[0] == 2
    assert run("backup", "verify", "something")[0] == 2
    assert run("backup", "take", "--date", "yesterday")[0] == 2
    assert run("backup", "restore", "--at", "noon")[0] == 2
    with service.only_one(engine, doing="test"):
        code, _, said = run("backup", "take")
        assert (code, said.partition(":")[0]) == (3, "lock_held_elsewhere")
    [made] = run("backup", "take")[1]["done"]
    code, _, said = run("backup", "restore", made["name"])
    assert (code, said.splitlines()[-1].partition(":")[0]) == (1, "restore_refused")
    os.truncate(Path(made["path"]) / METADATA, 10)
    assert "damaged" in run("backup", "list")[1][0]
    code, _, said = run("backup", "verify", "latest")
    assert (code, said.partition(":")[0]) == (1, "backup_damaged")
    assert run("backup", "restore", "--at", "latest")[0] == 1  # a server of one's own
    assert backup_files.names(tmp_path / "backups") == [made["name"]]


def test_a_full_disk_leaves_no_backup_and_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "backups").write_text("no directory")
    code, _, said = run("backup", "take", "--kind", "state")
    assert (code, said.splitlines()[-1].partition(":")[0]) == (1, "backup_failed")


def test_doctor_asks_for_a_backup_of_the_ledger(run: Run) -> None:
    def finding() -> tuple[str, str]:
        [found] = [each for each in run("doctor")[1] if each["check"] == "last backup"]
        return found["level"], found["message"]

    assert finding()[0] == "warn"
    run("backup", "take", "--kind", "state")
    assert "never backed up" in finding()[1]
    [made] = run("backup", "take")[1]["done"]
    assert finding()[0] == "ok"
    assert made["name"] in finding()[1]
