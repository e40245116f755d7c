"""The schema of a ledger: where it stands, and how it gets to where it should."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine, pool, text

from bandit.core.errors import LedgerUnavailable
from bandit.storage.engine import translated


def upgrade(url: str) -> None:
    """Bring the ledger at `url` to the newest schema; a ledger that is there already stays as is.

    Raises `LedgerUnavailable` when the server does not answer.
    """
    if current(url) == head():
        return
    # Here, because every command comes by and hardly one needs them.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["url"] = url
    with translated():
        command.upgrade(config, "head")


def head() -> str:
    """Return the revision this code was written for: that of its newest file, by number."""
    return max(path.name for path in (_scripts() / "versions").glob("[0-9]*.py"))[:4]


def current(url: str) -> str | None:
    """Return the revision the ledger at `url` is at; None for an empty database."""
    engine = create_engine(url, poolclass=pool.NullPool)
    with translated(), engine.connect() as connection:
        if not connection.execute(text("SELECT to_regclass('alembic_version')")).scalar():
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return None if found is None else str(found)


def require_head(url: str) -> None:
    """Raise `LedgerUnavailable` unless the ledger at `url` has the schema of this code."""
    found, wanted = current(url), head()
    if found != wanted:
        state = "is empty" if found is None else f"has schema {found}"
        message = f"the ledger {state}, this release needs {wanted}: run `liveops db upgrade`"
        raise LedgerUnavailable(message)


def _scripts() -> Path:
    spec = find_spec("migrations")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
