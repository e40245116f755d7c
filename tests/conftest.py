"""A real PostgreSQL for every test that asks: a fresh copy of a migrated database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aged_history import History
from embedded_owner import copy_of
from postgres_server import MIGRATED, PostgresServer, session_server
from sqlalchemy import Engine

from bandit.storage.engine import connect
from liveops.embedded_postgres import EmbeddedPostgres
from liveops.postgres_home import PACKAGED
from snapshots.archive_files import ParquetArchives

collect_ignore = ["airflow_probe.py"]
"""Runs in Airflow's environment, and imports what only that has."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of the ledger run on each packaged PostgreSQL."""
    parser.addoption(
        "--postgres-major",
        type=int,
        choices=PACKAGED,
        default=max(PACKAGED),
        help="major version of the server that holds the ledgers of tests",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark whatever uses a ledger as a storage test, so that no list of files goes stale.

    Slow tests run only where `-m` names them: each has a short form beside it.
    """
    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.storage)
    if "slow" not in config.getoption("-m"):
        long = [item for item in items if item.get_closest_marker("slow") is not None]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item.get_closest_marker("slow") is None]


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """The server of the session; the workers of pytest-xdist share one."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    with session_server(folder, major=request.config.getoption("--postgres-major")) as server:
        yield server


@pytest.fixture(scope="session")
def lived_history(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    """A history that was lived through once, for tests to copy."""
    with postgres_server.database() as url:
        engine = connect(url)
        made = History(engine, ParquetArchives(tmp_path_factory.mktemp("lived")))
        made.live()
        engine.dispose()  # a database that somebody uses cannot be copied
        yield made


@pytest.fixture
def database_url(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a migrated ledger of this test's own, empty unless the test has a `history`."""
    template = MIGRATED
    if "history" in request.fixturenames:
        template = request.getfixturevalue("lived_history").engine.url.database
    with postgres_server.database(template=template) as url:
        yield url


@pytest.fixture
def history(lived_history: History, engine: Engine, tmp_path: Path) -> History:
    """A history that is old enough to leave, in a ledger of this test's own."""
    return lived_history.moved_to(engine, ParquetArchives(tmp_path / "archives"))


@pytest.fixture
def empty_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database of this test's own in which nothing is."""
    with postgres_server.database(template="template0") as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the ledger at `database_url`."""
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder with a short path that every user may enter, as `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="session")
def stopped_postgres() -> Iterator[Path]:
    """The data directory of an embedded server that was started and stopped once."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        data_dir = Path(folder, "postgres")
        with EmbeddedPostgres(data_dir=data_dir, durable=False):
            pass
        yield data_dir


@pytest.fixture
def postgres_dir(stopped_postgres: Path, open_folder: Path) -> Path:
    """A copy of it of this test's own, to be spoilt."""
    return copy_of(stopped_postgres, open_folder / "postgres")
