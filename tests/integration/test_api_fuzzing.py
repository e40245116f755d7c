"""Whatever is asked, alone or one after the other, gets an answer that OpenAPI documents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_service import service
from ledger import assign, open_btc
from postgres_server import PostgresServer
from sqlalchemy import Engine

from bandit.storage.engine import connect
from liveops.api import trading

CONFIGURATION = Path(__file__).resolve().parents[1] / "data" / "schemathesis.toml"
KEY = "fuzz"
OPERATIONS = 29


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """What schemathesis reports of one run; `followed` are the links by which it went."""

    report: dict[str, Any]
    followed: frozenset[tuple[str, str]]
    output: str

    @property
    def cases(self) -> int:
        return int(self.report["test_cases"]["generated"])

    def require_no_fault(self) -> None:
        of_cases = self.report["test_cases"]
        assert self.report["exit_code"] == 0, self.output
        assert (of_cases["with_failures"], of_cases["errored"]) == (0, 0), self.output
        phases = {name: phase["status"] for name, phase in self.report["phases"].items()}
        every = ("examples", "coverage", "fuzzing", "stateful")
        assert phases == dict.fromkeys(every, "success"), self.output
        assert self.report["operations"]["tested"] == OPERATIONS


def fuzz(engine: Engine, folder: Path, *options: str) -> Fuzzed:
    """Let schemathesis ask a service with a little ledger, by every phase unless told."""
    open_btc(engine)
    assign(engine, ["u1", "u2"])
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    with service(engine, key=KEY) as client:
        done = subprocess.run(
            [
                *command,
                str(client.base_url.join("/openapi.json")),
                *("--header", f"Authorization: Bearer {KEY}"),
                *("--no-shrink", "--request-timeout", "10", "--no-color"),
                *("--report-json-path", "report.json", "--report-ndjson-path", "events.ndjson"),
                *options,
            ],
            cwd=folder,
            text=True,
            capture_output=True,
            check=False,
        )
    report = folder / "report.json"
    assert report.exists(), done.stdout + done.stderr
    return Fuzzed(
        report=json.loads(report.read_text(encoding="utf-8")),
        followed=frozenset(_followed(folder / "events.ndjson")),
        output=done.stdout + done.stderr,
    )


def _followed(events: Path) -> Iterator[tuple[str, str]]:
    with events.open(encoding="utf-8") as lines:
        for line in lines:
            scenario = json.loads(line).get("ScenarioFinished", {})
            for case in scenario.get("recorder", {}).get("cases", {}).values():
                if case["is_transition_applied"]:
                    source, _, target = case["transition"]["id"].split(" -> ")
                    yield source, target


def test_fuzzing_finds_no_fault(engine: Engine, tmp_path: Path) -> None:
    fuzzed = fuzz(engine, tmp_path, "--max-examples", "2", "--seed", "1")
    fuzzed.require_no_fault()
    assert fuzzed.followed


def test_fault_behind_a_made_assignment_is_found(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = trading.claim_values

    def too_much(*claimed: Any) -> dict[str, str]:
        return {**told(*claimed), "salt": "secret"}

    monkeypatch.setattr(trading, "claim_values", too_much)
    operations = ("list_experiments", "assign", "claim")
    options = [option for name in operations for option in ("--include-operation-id", name)]
    options += ["--phases", "stateful", "--max-examples", "5", "--max-failures", "1", "--seed", "1"]
    fuzzed = fuzz(engine, tmp_path, *options)
    failures = [failure["title"] for failure in fuzzed.report["failures"]]
    assert failures == ["Response violates schema"], fuzzed.output


@pytest.mark.slow
def test_ten_thousand_cases_find_no_fault(postgres_server: PostgresServer, tmp_path: Path) -> None:
    cases, followed = 0, set[tuple[str, str]]()
    for seed in range(1, 11):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with postgres_server.database() as url:
            engine = connect(url)
            fuzzed = fuzz(engine, folder, "--max-examples", "40", "--seed", str(seed))
            engine.dispose()
        fuzzed.require_no_fault()
        cases += fuzzed.cases
        followed |= fuzzed.followed
        if cases >= 10_000:
            break
    assert cases >= 10_000
