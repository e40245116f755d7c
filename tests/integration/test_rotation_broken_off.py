"""A rotation that ends after any of its steps goes on to one end: nothing is made or said twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ledger import join, open_btc
from sqlalchemy import Engine, text
from test_rotating import EASY, home, retrain, settings

from bandit.core.model import PolicyName
from bandit.service import learner_jobs, policies, rotating, trials
from liveops import cli, learning

__all__ = ["home"]  # the fixture

pytest.importorskip("stable_baselines3", reason="the learners are not installed")

DAY = date(2026, 11, 22)
COUNTS = {
    "policies of that day": "SELECT count(*) FROM policies WHERE name LIKE '%-20261122'",
    "registered": "SELECT count(*) FROM audit_log WHERE action = 'register_policy'"
    " AND subject LIKE '%-20261122'",
    "trials": "SELECT count(*) FROM backtest_trials",
    "recipes": "SELECT count(*) FROM policy_recipes",
    "joined": "SELECT count(*) FROM decisions WHERE reason LIKE '%-20261122 joined%'",
    "rotations": "SELECT count(*) FROM rotations",
    "audited": "SELECT count(*) FROM audit_log WHERE action = 'model_rotated'",
}
STEPS: list[tuple[Any, str]] = [
    (trials, "record"),
    (policies, "register"),
    (learning, "_written"),
    (learner_jobs, "keep_recipe"),
    (rotating, "place"),
]
"""What is written, in its order; the last of all is the rotation itself."""


class BrokenOff(BaseException):
    """The process ends here: nobody catches this."""


def ending_after(done: Callable[..., Any]) -> Callable[..., Any]:
    def last(*arguments: Any, **named: Any) -> Any:
        done(*arguments, **named)
        raise BrokenOff

    return last


def test_broken_off_after_each_step_in_turn_it_ends_once(
    engine: Engine, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_btc(engine)
    join(engine, PolicyName("agent"))
    config = settings(home, EASY.format(enabled="true"))
    asked = ["retrain", "--date", DAY.isoformat(), *config, "--json"]
    for place, name in STEPS:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, ending_after(getattr(place, name)))
            with pytest.raises(BrokenOff):
                cli.exit_code(cli.app, asked)
        assert rotating.newest(engine) == [], f"after {name}"
    [made] = retrain(capsys, *config)["rotations"]
    assert made["placings"] == {"btc": "joined"}
    assert retrain(capsys, *config)["rotations"] == []
    with engine.connect() as connection:
        found = {what: connection.execute(text(sql)).scalar_one() for what, sql in COUNTS.items()}
    assert found == {
        "policies of that day": 1,
        "registered": 1,
        "trials": 2,
        "recipes": 2,
        "joined": 1,
        "rotations": 1,
        "audited": 1,
    }
    stored = policies.find(engine, made["new"]).policy
    assert [path.name for path in (home / "artifacts").iterdir() if path.name == stored.sha] == [
        stored.sha
    ]
    card = json.loads((home / "cards" / f"{stored.sha}.json").read_bytes())
    assert card["policy"] == stored.name
