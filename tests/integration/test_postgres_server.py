"""The session's server for tests: fresh databases, one server for all users, no left-overs."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from postgres_server import PostgresServer, session_server
from sqlalchemy import Engine, create_engine, text

from bandit.storage.migrate import current, head


def scalar(url: str, statement: str) -> object:
    engine = create_engine(url)
    with engine.begin() as connection:
        found = connection.execute(text(statement)).scalar_one()
    engine.dispose()
    return found


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_test_does_not_see_the_tables_of_the_one_before(engine: Engine, attempt: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE left_behind ()"))


def test_a_database_for_tests_has_the_newest_schema(database_url: str) -> None:
    assert current(database_url) == head()


def test_the_server_is_the_one_that_was_asked_for(
    database_url: str, pytestconfig: pytest.Config
) -> None:
    major = pytestconfig.getoption("--postgres-major")
    assert str(scalar(database_url, "SHOW server_version")).startswith(f"{major}.")


def test_a_database_can_be_had_without_any_schema(postgres_server: PostgresServer) -> None:
    with postgres_server.database(template="template0") as url:
        assert current(url) is None


def test_a_database_is_dropped_even_while_something_is_connected(
    postgres_server: PostgresServer,
) -> None:
    with postgres_server.database(template="template0") as url:
        forgotten = create_engine(url)
        forgotten.connect()
        name = url.rpartition("@/")[2].partition("?")[0]
    forgotten.dispose()
    with postgres_server.database(template="template0") as url:
        found = scalar(url, f"SELECT count(*) FROM pg_database WHERE datname = '{name}'")
    assert found == 0


def _address(folder: Path, found: multiprocessing.Queue[str]) -> None:
    with session_server(folder) as server, server.database(template="template0") as url:
        found.put(str(scalar(url, "SELECT pg_postmaster_start_time()::text")))


def test_users_share_one_server_and_the_last_one_takes_it_along(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[str] = context.Queue()
    with session_server(tmp_path) as server, server.database(template="template0") as url:
        data_dir = Path((tmp_path / "data_dir").read_text())
        user = context.Process(target=_address, args=(tmp_path, found))
        user.start()
        theirs = found.get(timeout=60)
        user.join()
        ours = scalar(url, "SELECT pg_postmaster_start_time()::text")
    assert theirs == ours
    assert not data_dir.parent.exists()
    assert not (tmp_path / "data_dir").exists()
