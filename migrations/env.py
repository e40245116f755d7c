"""Runs the migrations on the URL handed over, with limits on locks and statements."""

from alembic import context
from sqlalchemy import create_engine, pool, text

LOCK_SECONDS = 5
STATEMENT_SECONDS = 300


def run() -> None:
    """Upgrade in one transaction; a half-applied step never stays."""
    config = context.config
    url = config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        message = (
            "say which database: `liveops db upgrade`, or `alembic -x url=postgresql+psycopg://…`"
        )
        raise SystemExit(message)
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection, connection.begin():
        connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))
        # Two processes that start at once migrate one after the other; the second may wait long.
        connection.execute(text("SELECT pg_advisory_xact_lock(0, 0)"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        context.configure(connection=connection, transactional_ddl=True)
        context.run_migrations()
    engine.dispose()


run()
