"""Backups in a real S3 server: sent and read back, sent later, and brought back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backed_up import TAKEN, backing_up, later, live, restored, taken
from s3_peer import S3Peer, s3_peer
from sqlalchemy import Engine

from bandit.core.backups import BackupDamaged, BackupKind, RestoreRefused
from bandit.core.errors import AmbiguousName, UnknownName
from config.settings import Settings
from liveops.backup_uploads import Uploads, fetch, upload
from liveops.ledger_server import backup_dir
from liveops.wiring import App
from snapshots import backup_files


@pytest.fixture(scope="module")
def peer() -> Iterator[S3Peer]:
    with s3_peer() as running:
        yield running


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> App:
    live(engine)
    return backing_up(engine, tmp_path / "here")[0]


def uploading(app: App, peer: S3Peer, bucket: str, **changes: Any) -> Settings:
    place = peer.place(bucket=bucket, **changes)
    told = {
        "home": str(app.settings.home),
        "backup": {"upload": True},
        "snapshots": {
            "bucket": bucket,
            "endpoint_url": place.endpoint_url,
            "region": place.region,
            "access_key_id": place.access_key,
            "secret_access_key": place.secret_key,
        },
    }
    return Settings.model_validate(told)


def sent(settings: Settings) -> Uploads:
    return upload(settings, backup_dir(settings, demo=False), now=lambda: TAKEN)


def test_what_was_sent_comes_back_to_an_empty_machine_and_is_restored(
    app: App, peer: S3Peer, tmp_path: Path, empty_url: str
) -> None:
    settings = uploading(app, peer, peer.bucket())
    state, made = taken(app, BackupKind.STATE), taken(app)
    assert set(sent(settings).done) == {state.name, made.name}
    assert sent(settings) == Uploads()
    there = tmp_path / "there"
    found = fetch(settings, there, "latest", now=lambda: TAKEN)
    assert (found.name, found.metadata) == (made.name, made.metadata)
    fetch(settings, there, state.name, now=lambda: TAKEN)
    assert restored(found, empty_url).known_from in (made.name, state.name)
    with pytest.raises(UnknownName):
        fetch(settings, there, "state_backup_20200101_000000", now=lambda: TAKEN)


def test_a_bucket_that_does_not_answer_keeps_nothing_from_being_backed_up(
    app: App, peer: S3Peer
) -> None:
    bucket = peer.bucket()
    made = taken(app)
    found = sent(uploading(app, peer, bucket, port=1))
    assert (found.done, found.pending) == ((), (made.name,))
    assert found.why
    # The next one sends what waits.
    assert sent(uploading(app, peer, bucket)).done == (made.name,)


def test_a_backup_that_was_damaged_meanwhile_is_not_sent(app: App, peer: S3Peer) -> None:
    made = taken(app)
    with (made.path / "ledger.dump").open("ab") as file:
        file.write(b"!")
    found = sent(uploading(app, peer, peer.bucket()))
    assert found.pending == (made.name,)
    assert "another size" in str(found.why)


def test_one_that_is_damaged_stops_no_older_one(app: App, peer: S3Peer) -> None:
    older = taken(app)
    newer = taken(later(app, minutes=60))
    with (newer.path / "ledger.dump").open("ab") as file:
        file.write(b"!")
    settings = uploading(app, peer, peer.bucket())
    found = sent(settings)
    assert (found.done, found.pending) == ((older.name,), (newer.name,))
    assert newer.name in str(found.why)
    assert "another size" in str(found.why)
    assert sent(settings) == replace(found, done=())


def test_what_is_damaged_in_the_bucket_is_refused(app: App, peer: S3Peer, tmp_path: Path) -> None:
    bucket = peer.bucket()
    settings = uploading(app, peer, bucket)
    made = taken(app)
    sent(settings)
    store = peer.store(bucket=bucket)
    (tmp_path / "there" / f"{made.name}.part").mkdir(parents=True)  # of one that was killed
    [key] = [key for key in store.keys("backups/") if key.endswith("ledger.dump")]
    store.put(key, b"something else")
    with pytest.raises(BackupDamaged):
        fetch(settings, tmp_path / "there", made.name, now=lambda: TAKEN)
    assert backup_files.names(tmp_path / "there") == []


def test_a_bucket_of_two_ledgers_is_no_place_to_guess(app: App, peer: S3Peer) -> None:
    bucket = peer.bucket()
    settings = uploading(app, peer, bucket)
    taken(app)
    sent(settings)
    name = "backups/another/database_backup_20260305_120000/backup_metadata.json"
    peer.store(bucket=bucket).put(name, b"{}")
    with pytest.raises(AmbiguousName, match="another"):
        fetch(settings, Path("nowhere"), "latest", now=lambda: TAKEN)
    with pytest.raises(RestoreRefused, match=r"snapshots\.bucket"):
        fetch(Settings(), Path("nowhere"), "latest", now=lambda: TAKEN)
