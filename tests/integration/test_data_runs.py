"""The pipeline's facts: once each, audited, and what metrics and trainings read from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from api_service import service
from data_facts import NIGHT_OF, SERIES, fact, finished, record
from ledger import NIGHT, NOON
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bandit.core.data_runs import DataStage, DataState, attempt_of, is_done
from bandit.core.errors import DataPaused
from bandit.service import data_runs
from liveops.clock import VirtualClock


def told(engine: Engine) -> dict[tuple[str, ...], float]:
    """What `/metrics` says of the pipeline at 02:00 of the third of March."""
    with service(engine, clock=VirtualClock(NIGHT)) as client:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {
            (sample.name.removeprefix("liveops_data_"), *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("liveops_data_")
        }


def test_nothing_is_told_of_a_pipeline_that_never_ran(engine: Engine) -> None:
    assert told(engine) == {}
    assert data_runs.standing(engine) is None


def test_a_finished_night_is_told(engine: Engine) -> None:
    record(engine, finished(NOON))
    assert told(engine) == {
        ("failed",): 0.0,
        ("paused",): 0.0,
        ("finished_age_seconds",): 38 * 3600.0,
        ("night_seconds",): 300.0,
        ("rows",): 24.0,
        ("anomalies", "warning"): 1.0,
        ("anomalies", "critical"): 0.0,
        ("bar_age_seconds", SERIES): 50 * 3600.0,
        ("completeness_ratio", SERIES): 0.975,
    }


def test_a_failure_is_told_until_a_stage_is_done(engine: Engine) -> None:
    later = NOON + timedelta(hours=1)
    record(engine, fact(DataStage.VALIDATE, NOON, state=DataState.FAILED))
    assert told(engine) == {("failed",): 1.0, ("paused",): 0.0}
    record(engine, fact(DataStage.EXTRACT, later, attempt=2))
    assert told(engine)["failed",] == 0.0


def test_a_stage_is_done_once_and_fails_as_often_as_it_does(engine: Engine) -> None:
    done = fact(DataStage.LOAD, NOON, version_before="a" * 64, version_after="b" * 64)
    failed = fact(DataStage.LOAD, NOON, state=DataState.FAILED)
    record(engine, failed, failed, done, done, replace(done, rows_in=7))

    facts = data_runs.of_date(engine, NIGHT_OF)

    assert [(found.state, found.rows_in) for found in facts] == [
        (DataState.FAILED, 0),
        (DataState.FAILED, 0),
        (DataState.DONE, 0),
    ]
    assert facts[2] == done
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT action FROM audit_log ORDER BY id")).scalars()
        assert list(rows) == ["data_load_failed", "data_load_failed", "data_load"]


def test_an_attempt_ends_with_a_failure_before_the_load_or_when_it_is_taken_back(
    engine: Engine,
) -> None:
    def attempt() -> int:
        return attempt_of(data_runs.of_date(engine, NIGHT_OF))

    assert attempt() == 1
    record(engine, fact(DataStage.VALIDATE, NOON, state=DataState.FAILED))
    assert attempt() == 2
    record(engine, fact(DataStage.ARCHIVE, NOON, state=DataState.FAILED, attempt=2))
    assert attempt() == 2
    record(engine, fact(DataStage.HEALTH, NOON, attempt=2))
    assert is_done(data_runs.of_date(engine, NIGHT_OF))
    record(engine, fact(DataStage.RESTORE, NOON, attempt=2))
    assert attempt() == 3
    assert not is_done(data_runs.of_date(engine, NIGHT_OF))


def test_trainings_are_refused_from_pause_to_resume(engine: Engine) -> None:
    data_runs.require_whole(engine)
    record(engine, finished(NOON), fact(DataStage.PAUSE, NOON))
    with pytest.raises(DataPaused, match="liveops data rollback 2026-03-01") as caught:
        data_runs.require_whole(engine)
    assert caught.value.code == "data_paused"
    assert told(engine)["paused",] == 1.0
    record(engine, fact(DataStage.RESUME, NOON, state=DataState.FAILED))
    assert data_runs.paused(engine) is not None
    record(engine, fact(DataStage.RESUME, NOON))
    data_runs.require_whole(engine)
    assert told(engine)["paused",] == 0.0


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"attempt": 0}, "data_runs_attempt_check"),
        ({"rows_out": -1}, "data_runs_rows_out_check"),
        ({"version_after": "a" * 64}, "both_versions_or_none"),
        ({"ended_at": NOON - timedelta(days=1)}, "data_runs_check"),
    ],
)
def test_the_database_refuses_what_cannot_be(
    engine: Engine, change: dict[str, object], constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        record(engine, fact(DataStage.LOAD, NOON), fact(DataStage.HEALTH, NOON, **change))
    assert data_runs.of_date(engine, NIGHT_OF) == []
