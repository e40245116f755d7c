"""A ledger with stored policies in an experiment, and the places where its snapshots go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from api_service import application
from ledger import NOON, join, open_btc
from made_up_encoder_policy import embedding_policy
from made_up_policy import deciding
from sqlalchemy import Engine

from bandit.core.model import Policy, PolicyKind, PolicyName
from bandit.service import policies
from config.settings import SettingRow, describe, load_settings
from learners.artifact import Artifact
from liveops.clock import VirtualClock
from liveops.snapshotting import Places, Taken, places_of, take
from liveops.wiring import App

TODAY = NOON.date()
AGENT, CLASSIFIER = PolicyName("agent"), PolicyName("classifier")


def store_policies(engine: Engine, home: Path, *, is_small: bool = False) -> Sequence[Artifact]:
    """Open `btc` with an agent and a classifier that sees through an encoder, stored in `home`.

    With the agent alone where it `is_small`.
    """
    open_btc(engine)
    made = [deciding(home / "artifacts")]
    if not is_small:
        made.append(embedding_policy(home / "artifacts"))
    for name, kind, artifact in zip(
        (AGENT, CLASSIFIER), (PolicyKind.REINFORCEMENT, PolicyKind.TABNET), made, strict=False
    ):
        policy = Policy(name=name, kind=kind, sha=artifact.sha, metadata={"seed": 7})
        policies.register(engine, policy, now=NOON, actor="test")
        join(engine, name)
    return made


def app_at(
    engine: Engine, home: Path, *, days: float = 0, snapshots: Mapping[str, Any] = {}
) -> App:
    """An App whose state lies in `home`, so many days after noon of the tests' day."""
    return application(
        engine,
        clock=VirtualClock(NOON + timedelta(days=days)),
        settings={"home": str(home), "snapshots": dict(snapshots)},
    )


def settings_rows(app: App) -> list[SettingRow]:
    """The settings as a snapshot keeps them."""
    loaded = load_settings(path=None, environ={}, dotenv=Path("/dev/null"))
    return describe(replace(loaded, settings=app.settings))


def taken(app: App, *, day: date | None = None, places: Places | None = None) -> Taken:
    """Take the snapshot of a day, today's unless told."""
    return take(
        app,
        places or places_of(app),
        settings_rows(app),
        day=day or app.clock.now().date(),
        actor="test",
    )
