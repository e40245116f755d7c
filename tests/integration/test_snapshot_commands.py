"""`liveops snapshot ...`: what is typed, what is printed, what is left, and the exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ledger import count
from snapshot_scene import store_policies
from sqlalchemy import Engine

from liveops import cli

Typed = Callable[..., tuple[int, Any]]


@pytest.fixture
def home(engine: Engine, tmp_path: Path) -> Path:
    store_policies(engine, tmp_path / "home", is_small=True)
    return tmp_path / "home"


@pytest.fixture
def typed(
    home: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(home))

    def typing(*arguments: str) -> tuple[int, Any]:
        code = cli.exit_code(cli.app, ["snapshot", *arguments, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    return typing


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_snapshot_is_taken_listed_verified_restored_and_kept(
    typed: Typed, home: Path, tmp_path: Path
) -> None:
    today = datetime.now(UTC).date().isoformat()
    before = files(home)
    code, said = typed("take", "--dry-run")
    assert (code, said["outcome"]) == (0, "would_take")
    assert files(home) == before
    code, said = typed("take")
    assert (code, said["outcome"], said["date"]) == (0, "taken", today)
    assert (said["pending"], said["left_out"]) == ([], {})
    sha256 = said["manifest_sha256"]
    code, said = typed("take", "--date", today)
    assert (code, said["outcome"], said["manifest_sha256"]) == (0, "already", sha256)
    code, [said] = typed("list")
    assert (code, said["date"], said["waits"]) == (0, today, False)
    assert list(said["stores"]) == ["local"]
    assert typed("verify")[0] == 0
    assert typed("verify", today) == (
        0,
        [{"date": today, "store": "local", "bytes": said["stores"]["local"]["bytes"],
          "problem": None}],
    )  # fmt: skip
    assert typed("prune", "--dry-run") == (
        0,
        {"local": {"removed": [], "objects": 0, "unfinished": 0}},
    )
    assert typed("prune")[0] == 0
    assert typed("upload")[0] == 0
    kept = files(home / "artifacts")
    shutil.rmtree(home / "artifacts")
    code, said = typed("restore", today, "--dry-run")
    assert (code, said["put_back"]) == (0, [])
    assert not (home / "artifacts").exists()
    code, said = typed("restore", today, "--policies", "--into", str(tmp_path / "read"))
    assert (code, len(said["put_back"])) == (0, 1)
    assert files(home / "artifacts") == kept
    assert files(tmp_path / "read" / "artifacts") == kept


def test_what_is_asked_wrongly_exits_2(typed: Typed, tmp_path: Path) -> None:
    for arguments in (
        ["take", "--date", "2999-01-01"],
        ["take", "--date", "yesterday"],
        ["restore", "2026-03-01"],
        ["restore", "../KILLED", "--into", "x"],
    ):
        assert typed(*arguments)[0] == 2, arguments


def test_what_is_not_there_exits_1(typed: Typed, tmp_path: Path) -> None:
    assert typed("verify") == (0, [])
    assert typed("verify", "2026-03-01")[0] == 1
    code, said = typed("restore", "2026-03-01", "--into", str(tmp_path / "x"))
    assert code == 1
    assert said.startswith("blob_missing: ")


def test_a_damaged_one_exits_1_and_names_the_file(typed: Typed, home: Path) -> None:
    today = datetime.now(UTC).date().isoformat()
    typed("take")
    for path in (home / "snapshots" / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    code, [said] = typed("verify", today)
    assert code == 1
    assert "must have" in said["problem"]


def test_a_policy_that_is_not_sound_exits_1(typed: Typed, home: Path) -> None:
    for path in (home / "artifacts").rglob("weights.safetensors"):
        path.write_bytes(b"")
    code, said = typed("take")
    assert (code, len(said["left_out"])) == (1, 1)


def test_it_waits_here_while_the_bucket_is_away(
    typed: Typed, home: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "liveops.yaml"
    config.write_text(
        "snapshots: {bucket: ledger, endpoint_url: 'http://127.0.0.1:9', timeout_seconds: 0.5,"
        " access_key_id: AKIAEXAMPLE, secret_access_key: s3cr3t-of-the-bucket}\n"
    )
    monkeypatch.setenv("LIVEOPS_CONFIG", str(config))
    code, said = typed("take")
    assert (code, len(said["pending"])) == (0, 1)
    assert "EndpointConnectionError" in said["problems"][0]
    code, said = typed("upload")
    assert (code, len(said["pending"])) == (1, 1)
    code, [said] = typed("list")
    assert (code, said["waits"], list(said["stores"])) == (0, True, ["local"])
    code, [said] = typed("verify")
    assert (code, said["store"], said["problem"]) == (0, "local", None)
    assert count(engine, "snapshots") == 2
    everything = b"".join(files(home).values())
    assert b"s3cr3t-of-the-bucket" not in everything
    assert b"AKIAEXAMPLE" not in everything


def test_without_a_ledger_a_snapshot_is_restored_all_the_same(
    typed: Typed, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime.now(UTC).date().isoformat()
    typed("take")
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    shutil.rmtree(home / "artifacts")
    code, said = typed("restore", today, "--policies")
    assert (code, len(said["put_back"])) == (0, 1)


def test_help_loads_no_boto3() -> None:
    source = (
        "import sys; from liveops import cli; cli.exit_code(cli.app, ['snapshot', '--help']);"
        " sys.exit('boto3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False)
    assert done.returncode == 0
