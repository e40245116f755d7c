"""`liveops audit verify` from the outside, on a ledger that a real service sealed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from commands import free_port, running, script, wait_for
from sqlalchemy import Engine, text

POLICIES = ("alpha", "beta", "gamma")


@pytest.fixture
def home(tmp_path: Path, engine: Engine, database_url: str) -> Path:
    """State of a service that saw three policies registered and was stopped."""
    home, log = tmp_path / "var", tmp_path / "log"
    arguments = ("serve", "--port", str(free_port()))
    with running(*arguments, home=home, log=log, LIVEOPS_DATABASE_URL=database_url) as process:
        wait_for("serving http", log, process)
        for number, name in enumerate(POLICIES):
            register(database_url, home, name, number)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    return home


def register(url: str, home: Path, name: str, number: int) -> None:
    options = ("--kind", "external", "--sha", f"{number:08x}")
    answer = script(
        "liveops", "policy", "register", name, *options, home=home, LIVEOPS_DATABASE_URL=url
    )
    assert answer.returncode == 0, answer.stderr


def verified(url: str, home: Path, *arguments: str) -> tuple[int, str]:
    answer = script("liveops", "audit", "verify", *arguments, home=home, LIVEOPS_DATABASE_URL=url)
    assert "Traceback" not in answer.stderr
    return answer.returncode, answer.stdout


def test_untouched_log_is_what_was_sealed(home: Path, database_url: str) -> None:
    code, said = verified(database_url, home)
    assert (code, said) == (0, "3 rows, sealed to sequence 3, anchored to 3\n")
    code, said = verified(database_url, home, "--json")
    (anchor_file,) = home.glob("audit_anchors_*.jsonl")
    assert (code, json.loads(said)) == (
        0,
        {
            "anchor_file": str(anchor_file),
            "rows": 3,
            "waiting": 0,
            "sealed_to": 3,
            "anchored_to": 3,
            "torn_lines": 0,
            "findings": [],
        },
    )
    # What is written while no service runs waits, and a torn anchor is said.
    register(database_url, home, "late", 9)
    with anchor_file.open("a") as file:
        file.write('{"sequence": 4, ')
    assert verified(database_url, home) == (
        0,
        "4 rows, sealed to sequence 3, anchored to 3\n"
        "rows that wait, as they do while no service runs: 1\n"
        f"lines cut off or unreadable in {anchor_file}: 1\n",
    )


def test_tampering_is_told_row_by_row_and_exits_1(
    home: Path, engine: Engine, database_url: str, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE audit_log SET actor = 'nobody' WHERE id = 2"))
        connection.execute(text("DELETE FROM audit_seals WHERE sequence = 3"))
        connection.execute(text("DELETE FROM audit_log WHERE id = 3"))
    code, said = verified(database_url, home)
    assert code == 1
    assert said.splitlines()[:2] == [
        "edited: audit row 2, sequence 2: the row is not what was sealed",
        "truncated: sequence 3: was anchored, but the chain ends at 2: its tail was cut off",
    ]
    # Without the service's state there is no anchor; with a copy of it there is.
    code, said = verified(database_url, tmp_path / "elsewhere", "--json")
    assert code == 1
    kinds = [finding["kind"] for finding in json.loads(said)["findings"]]
    assert kinds == ["edited", "unanchored"]
    (anchor_file,) = home.glob("audit_anchors_*.jsonl")
    copied = tmp_path / "copy.jsonl"
    copied.write_bytes(anchor_file.read_bytes())
    code, said = verified(database_url, tmp_path / "elsewhere", "--anchors", str(copied))
    assert code == 1
    assert "truncated: sequence 3" in said


def test_anchor_file_that_is_not_there_is_wrong_usage(home: Path, database_url: str) -> None:
    assert verified(database_url, home, "--anchors", str(home / "nothing.jsonl"))[0] == 2
