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
from api_service import documented, service
from ledger import assign, open_btc
from postgres_server import PostgresServer
from sqlalchemy import Engine

from bandit.storage.engine import connect
from liveops.api import trading

CONFIGURATION = Path(__file__).resolve().parents[1] / "data" / "schemathesis.toml"
KEY = "fuzz"
# What becomes of a decision, without what would stop it: few routes, followed far.
LOOP = (
    *("list_experiments", "show_report", "assign", "report_fallback", "claim"),
    *("record_outcome", "mark_positions", "revise_outcome"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """What schemathesis reports of one run; `followed` says from where to where links led it."""

    report: dict[str, Any]
    followed: frozenset[tuple[str, str]]
    output: str

    @property
    def cases(self) -> int:
        return int(self.report["test_cases"]["generated"])

    def require_no_fault(self) -> None:
        of_cases = self.report["test_cases"]
        assert (of_cases["with_failures"], of_cases["errored"]) == (0, 0), self.output
        assert self.report["exit_code"] == 0, self.output


def fuzz(engine: Engine, folder: Path, *options: str) -> Fuzzed:
    """Let schemathesis ask a service that has a little ledger."""
    open_btc(engine)
    made = [str(made.id) for made in assign(engine, [f"u{number}" for number in range(8)])]
    (folder / "schemathesis.toml").write_text(
        f"{CONFIGURATION.read_text()}\n[dictionaries.assignments]\nvalues = {json.dumps(made)}\n"
    )
    with service(engine, key=KEY) as client:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run"),
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
    output = done.stdout + done.stderr
    assert (folder / "report.json").exists(), output
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    followed = frozenset(_followed(folder / "events.ndjson"))
    return Fuzzed(report=report, followed=followed, output=output)


def _followed(events: Path) -> Iterator[tuple[str, str]]:
    with events.open(encoding="utf-8") as lines:
        for line in lines:
            scenario = json.loads(line).get("ScenarioFinished", {})
            for case in scenario.get("recorder", {}).get("cases", {}).values():
                if case["is_transition_applied"]:
                    source, _, target = case["transition"]["id"].split(" -> ")
                    yield source, target


def in_loop() -> list[str]:
    """The options that ask for no more than what becomes of a decision."""
    chosen = [option for name in LOOP for option in ("--include-operation-id", name)]
    return [*chosen, "--phases", "stateful"]


def links_of_loop() -> set[tuple[str, str]]:
    """From where to where the document leads within the loop."""
    paths = documented(with_key=True)["paths"]
    names = {
        route["operationId"]: f"{method.upper()} {path}"
        for path, routes in paths.items()
        for method, route in routes.items()
    }
    return {
        (names[route["operationId"]], names[target])
        for routes in paths.values()
        for route in routes.values()
        for answer in route["responses"].values()
        for target in answer.get("links", {})
        if {route["operationId"], target} <= set(LOOP)
    }


def test_fuzzing_finds_no_fault(engine: Engine, tmp_path: Path) -> None:
    fuzzed = fuzz(engine, tmp_path, "--max-examples", "2", "--seed", "1")
    fuzzed.require_no_fault()
    assert fuzzed.report["operations"]["tested"] == 48
    phases = {name: phase["status"] for name, phase in fuzzed.report["phases"].items()}
    assert phases == dict.fromkeys(("examples", "coverage", "fuzzing", "stateful"), "success")
    assert fuzzed.followed


def test_fault_behind_a_made_assignment_is_found(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = trading.claim_values

    def too_much(*claimed: Any) -> dict[str, str]:
        return {**told(*claimed), "salt": "secret"}

    monkeypatch.setattr(trading, "claim_values", too_much)
    few = ("--max-examples", "5", "--max-failures", "1", "--seed", "1")
    fuzzed = fuzz(engine, tmp_path, *in_loop(), *few)
    failures = [failure["title"] for failure in fuzzed.report["failures"]]
    assert failures == ["Response violates schema"], fuzzed.output


@pytest.mark.slow
def test_ten_thousand_cases_find_no_fault(postgres_server: PostgresServer, tmp_path: Path) -> None:
    cases, followed = 0, set[tuple[str, str]]()
    asked = {
        "everything": ("--max-examples", "40"),
        "loop": (*in_loop(), "--max-examples", "100"),
    }
    # A state machine ends when the ledger answers otherwise than at first: more seeds go further.
    for seed in range(1, 11):
        for name, options in asked.items():
            folder = tmp_path / f"{name}-{seed}"
            folder.mkdir()
            with postgres_server.database() as url:
                engine = connect(url)
                fuzzed = fuzz(engine, folder, *options, "--seed", str(seed))
                engine.dispose()
            fuzzed.require_no_fault()
            cases += fuzzed.cases
            followed |= fuzzed.followed
        if cases >= 10_000:
            break
    assert cases >= 10_000
    assert links_of_loop() <= followed
