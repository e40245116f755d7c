"""Where the archives of a ledger are, and letting decisions leave for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Engine

from bandit.core.errors import BanditError
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
    app: App, names: Sequence[str], *, before: datetime, actor: str
) -> Iterator[tuple[str, Aged | BanditError]]:
    """Age experiments one after the other; one that cannot be aged does not keep the others."""
    files = archives_of(app)
    with _archivist(app) as engine:
        for name in dict.fromkeys(names or experiments.listed(app.engine)):
            now = app.clock.now()
            try:
                yield name, ageing.age(engine, files, name, before=before, now=now, actor=actor)
            except BanditError as error:
                yield name, error


def abandon_archive(app: App, name: str, *, actor: str) -> None:
    """Give up an unfinished archive; see `bandit.service.ageing.abandon`."""
    with _archivist(app) as engine:
        ageing.abandon(engine, name, now=app.clock.now(), actor=actor)


@contextmanager
def _archivist(app: App) -> Iterator[Engine]:
    """Yield an engine with the rights of the archivist."""
    url = app.engine.url.render_as_string(hide_password=False)
    engine = connect(roles.as_archivist(url))
    try:
        yield engine
    finally:
        engine.dispose()
