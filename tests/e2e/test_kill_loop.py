"""The core of the crash benchmark in its smallest form: each victim once."""

from __future__ import annotations

from pathlib import Path

from benchmarks.crash import kill_loop
from benchmarks.crash.kill_loop import Victim
from benchmarks.operation_log import Phase, Verb
from liveops.embedded_postgres import EmbeddedPostgres


def test_what_is_acknowledged_outlives_kills_of_postgres_a_replica_and_both(
    open_folder: Path,
) -> None:
    with EmbeddedPostgres(data_dir=open_folder / "postgres") as server:
        replicas = open_folder / "replicas"
        replicas.mkdir()
        report = kill_loop.run(server, replicas, kills=3, seed=7)
    assert report.faults == []
    assert {kill.victim for kill in report.kills} == set(Victim)
    # Each kind of write was acknowledged, before and after; and somebody was cut off by the kills.
    last = max(kill.at for kill in report.kills)
    done = [e for e in report.entries if e.phase is Phase.OK]
    assert {e.verb for e in done if e.at > last} == {Verb.ASSIGN, Verb.CLAIM, Verb.OUTCOME}
    assert any(e.phase is Phase.UNKNOWN for e in report.entries)
