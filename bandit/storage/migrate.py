"""The schema of a ledger: where it stands, and how it gets to where it should."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool

from bandit.core.errors import LedgerUnavailable
from bandit.storage.engine import translated


def upgrade(url: str) -> None:
    """Bring the ledger at `url` to the newest schema; a ledger that is there already stays as is.

    Raises `LedgerUnavailable` when the server does not answer.
    """
    config = _config()
    config.attributes["url"] = url
    with translated():
        command.upgrade(config, "head")


def head() -> str:
    """Return the revision this code was written for."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def current(url: str) -> str | None:
    """Return the revision the ledger at `url` is at; None for an empty database."""
    engine = create_engine(url, poolclass=pool.NullPool)
    with translated(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_head(url: str) -> None:
    """Raise `LedgerUnavailable` unless the ledger at `url` has the schema of this code."""
    found, wanted = current(url), head()
    if found != wanted:
        state = "is empty" if found is None else f"has schema {found}"
        message = f"the ledger {state}, this release needs {wanted}: run `liveops db upgrade`"
        raise LedgerUnavailable(message)


def _config() -> Config:
    spec = find_spec("migrations")
    assert spec is not None
    assert spec.origin is not None
    config = Config()
    config.set_main_option("script_location", str(Path(spec.origin).parent).replace("%", "%%"))
    return config
