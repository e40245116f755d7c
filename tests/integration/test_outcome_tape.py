"""Twenty thousand outcomes in disorder, told by two processes, end as in order by one."""

from __future__ import annotations

from postgres_server import PostgresServer
from sqlalchemy import Engine, text

from bandit.service import rebuilding
from bandit.storage.engine import connect
from benchmarks.ledger import outcome_tape as tape

COUNT = 20_000


def test_disorder_ends_in_the_same_statistics_as_order(
    postgres_server: PostgresServer, engine: Engine, database_url: str
) -> None:
    tape.assign_all(engine, COUNT)
    tape.tell_shuffled(database_url, COUNT)
    with postgres_server.database() as url:
        in_order = connect(url)
        tape.assign_all(in_order, COUNT)
        tape.tell_sorted(in_order, COUNT)
        expected = tape.statistics(in_order)
        in_order.dispose()
    assert tape.statistics(engine) == expected
    assert len(expected) > 60
    assert rebuilding.compare(engine, now=tape.END).mismatches == ()
    counts = "SELECT (SELECT count(*) FROM outcomes), (SELECT count(*) FROM outcome_revisions)"
    with engine.connect() as connection:
        told, corrected = connection.execute(text(counts)).one()
    assert told == COUNT
    assert 150 < corrected < 250
