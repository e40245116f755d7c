"""Where the archives of a ledger are, and the one way to let decisions leave for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from bandit.service import ageing, auditing, experiments
from bandit.service.ageing import Aged
from bandit.storage import roles
from bandit.storage.engine import connect
from liveops.ledger_server import archive_dir
from liveops.wiring import App
from snapshots.archive_files import ParquetArchives


def archives_of(app: App) -> ParquetArchives:
    """Return the archives of the ledger of `app`; each ledger has a folder of its own."""
    return ParquetArchives(archive_dir(app.settings) / str(auditing.ledger_id(app.engine)))


def age_experiments(
    app: App, names: list[str], *, before: datetime, actor: str
) -> Iterator[tuple[str, Aged]]:
    """Age experiments one after the other, with the rights of the archivist."""
    files = archives_of(app)
    url = app.engine.url.render_as_string(hide_password=False)
    engine = connect(roles.as_archivist(url))
    try:
        for name in names or experiments.listed(app.engine):
            now = app.clock.now()
            yield name, ageing.age(engine, files, name, before=before, now=now, actor=actor)
    finally:
        engine.dispose()
