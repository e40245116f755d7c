"""`liveops verify`: what is relied on, what is not, and what cannot be said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger import CHALLENGER, NOON, count, feed, join, open_btc, register
from made_up_policy import WEIGHTS, stored
from sqlalchemy import Engine, text

from bandit.core.audit_chain import Anchor
from bandit.core.model import Policy, PolicyKind, PolicyName, PolicySha
from bandit.service import auditing, policies
from liveops import cli
from liveops.anchors import AnchorFile

Verify = Callable[..., tuple[int, dict[str, tuple[str, str]]]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def verify(
    database_url: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Verify:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)
    monkeypatch.setenv("LIVEOPS_HOME", str(home))

    def run(*arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
        code = cli.exit_code(cli.app, ["verify", *arguments, "--json"])
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return code, {row["check"]: (row["verdict"], row["found"]) for row in said["checks"]}

    return run


def with_artifact(engine: Engine, home: Path, *, name: str = "made", seed: int = 1) -> PolicySha:
    sha = stored(home / "artifacts", seed=seed).sha
    policy = Policy(name=PolicyName(name), kind=PolicyKind.REINFORCEMENT, sha=sha)
    policies.register(engine, policy, now=NOON, actor="test")
    join(engine, name)
    return sha


def test_nothing_to_check_is_no_pass(engine: Engine, home: Path, verify: Verify) -> None:
    assert verify() == (
        0,
        {
            "audit": (
                "INCONCLUSIVE",
                "nothing is sealed: no service has run on this ledger yet",
            ),
            "statistics": ("INCONCLUSIVE", "0 arms counted again"),
            "artifacts": ("INCONCLUSIVE", "no policy that decides is stored here"),
            "snapshot": ("INCONCLUSIVE", "no snapshot was taken yet"),
            "backup": ("INCONCLUSIVE", f"no backup of the ledger lies in {home / 'backups'}"),
        },
    )


def test_what_is_whole_passes(
    engine: Engine, home: Path, verify: Verify, capsys: pytest.CaptureFixture[str]
) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, ["0.001", "-0.001"])
    with_artifact(engine, home)
    head = auditing.seal(engine, now=NOON)
    assert head is not None
    file = AnchorFile(home / f"audit_anchors_{auditing.ledger_id(engine)}.jsonl")
    file.append(Anchor(sequence=head.sequence, chain_hash=head.chain_hash, sealed_at=NOON))
    for kept in ("snapshot", "backup"):
        assert cli.exit_code(cli.app, [kept, "take"]) == 0
    capsys.readouterr()
    code, found = verify()
    assert (code, {name: verdict for name, (verdict, _) in found.items()}) == (
        0,
        dict.fromkeys(("audit", "statistics", "artifacts", "snapshot", "backup"), "PASS"),
    )
    assert found["statistics"][1] == "3 arms counted again"
    assert found["artifacts"][1] == (
        "1 stored policies are what their hashes say; 2 are kept elsewhere"
    )


def test_each_kind_of_damage_fails_and_is_named(engine: Engine, home: Path, verify: Verify) -> None:
    open_btc(engine)
    feed(engine, CHALLENGER, ["0.001", "-0.001"])
    broken, gone = with_artifact(engine, home), with_artifact(engine, home, name="gone", seed=2)
    weights = home / "artifacts" / broken / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (home / "artifacts" / gone).rename(home / "elsewhere")
    with engine.begin() as connection:
        connection.execute(text("UPDATE arm_statistics SET fees = 7 WHERE n_trades > 0"))
    code, found = verify()
    assert code == 1
    assert found["statistics"] == ("FAIL", f"btc/{CHALLENGER}: arm_statistics.fees differs")
    verdict, said = found["artifacts"]
    assert verdict == "FAIL"
    assert f"gone: nothing is stored here of {gone[:12]}; made: " in said
    assert WEIGHTS in said


def test_a_retired_arm_needs_no_artifact_here(engine: Engine, home: Path, verify: Verify) -> None:
    open_btc(engine)
    register(engine, "later", "b" * 64)
    join(engine, "later")
    _, found = verify()
    assert found["artifacts"] == ("INCONCLUSIVE", "no policy that decides is stored here")


def test_a_dry_run_checks_nothing(
    engine: Engine, verify: Verify, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.exit_code(cli.app, ["verify", "--dry-run"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "check audit",
        "check statistics",
        "check artifacts",
        "check snapshot",
        "check backup",
    ]
    assert count(engine, "statistics_comparisons") == 0
    assert cli.exit_code(cli.app, ["verify", "--date", "2999-01-01"]) == 2
