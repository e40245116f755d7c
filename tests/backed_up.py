"""A ledger that has lived a little, and the App that backs it up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from api_service import application
from ledger import BEST, CHALLENGER, assign, assign_to, closed, feed, open_btc, record_all
from sqlalchemy import Engine

from bandit.core.backups import BackupKind
from bandit.service import auditing
from bandit.service.ledger import ledger_digest
from bandit.storage.engine import connect
from config.settings import Settings
from liveops import backups, restoring
from liveops.clock import VirtualClock
from liveops.restoring import Restored
from liveops.wiring import App
from snapshots.backup_files import Backup

TAKEN = datetime(2026, 3, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def quiet(line: str) -> None:
    """Hear a step and say nothing."""


def live(engine: Engine) -> None:
    """Open `btc`, trade in it on both arms, and leave a decision open."""
    open_btc(engine)
    feed(engine, "prod", BEST, prefix="p")
    feed(engine, CHALLENGER, BEST)
    assign(engine, ["open"])
    auditing.seal(engine, now=TAKEN)


def backing_up(engine: Engine, home: Path, **backup: Any) -> tuple[App, VirtualClock]:
    """The App of a ledger with state in `home`, and the clock that it goes by."""
    clock = VirtualClock(TAKEN)
    settings = Settings.model_validate({"home": str(home), "backup": backup})
    return replace(application(engine, clock=clock), settings=settings), clock


def taken(app: App, kind: BackupKind = BackupKind.DATABASE) -> Backup:
    """A backup that was taken now."""
    made = backups.take(app, kind, say=quiet)
    assert made is not None
    return made


def restored(backup: Backup, url: str, **more: Any) -> Restored:
    """The backup, restored into the database at `url` a day later."""
    how: dict[str, Any] = {
        "root": backup.path.parent,
        "now": lambda: TAKEN + timedelta(days=1),
        "actor": "test",
        "say": quiet,
    }
    return restoring.restore(backup, url, **(how | more))


def digest_at(url: str) -> str:
    """The digest of the ledger at `url`."""
    engine = connect(url)
    digest = ledger_digest(engine)
    engine.dispose()
    return digest


def trade_on(engine: Engine) -> None:
    """Let `btc` decide and earn after the backup."""
    [made] = assign_to(engine, CHALLENGER, 1, prefix="later", now=TAKEN)
    record_all(engine, [closed(made, "0.001", minutes=1)], now=TAKEN + MINUTE)


def later(app: App, *, minutes: int) -> App:
    """The App so many minutes after the first backup."""
    assert isinstance(app.clock, VirtualClock)
    app.clock.advance_to(TAKEN + minutes * MINUTE)
    return app


def flip(path: Path, at: int) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
