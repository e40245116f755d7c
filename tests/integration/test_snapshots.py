"""Snapshots of a ledger with stored policies: taken once, read back, brought up later, removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger import NOON, count
from s3_peer import S3Peer, s3_peer
from snapshot_scene import TODAY, app_at, settings_rows, store_policies, taken
from sqlalchemy import Engine, create_engine

from bandit.core.errors import BanditError, Conflict, InvalidInput
from bandit.core.snapshots import SnapshotEvent, SnapshotStore, pending_uploads
from bandit.service import snapshots as facts
from bandit.storage.migrate import upgrade
from learners.artifact import read
from learners.sealed_files import ArtifactRefused, seal
from liveops.snapshot_checking import verify
from liveops.snapshot_contents import contents
from liveops.snapshot_restoring import put_back, restore, unpack
from liveops.snapshotting import Outcome, day_of, places_of, prune, upload
from liveops.wiring import App
from snapshots import copies
from snapshots.blob_store import BlobMissing, StoreUnavailable
from snapshots.local_store import LocalStore
from snapshots.manifest import Entry, EntryKind, SnapshotDamaged, manifest_key
from snapshots.s3_store import S3Store

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def peer() -> Iterator[S3Peer]:
    with s3_peer() as running:
        yield running


@pytest.fixture
def home(engine: Engine, tmp_path: Path) -> Path:
    store_policies(engine, tmp_path / "home")
    return tmp_path / "home"


def bucket_settings(peer: S3Peer, **changes: Any) -> dict[str, Any]:
    chosen = {
        "bucket": peer.bucket(),
        "endpoint_url": f"http://127.0.0.1:{peer.port}",
        "region": "eu-central-1",
        "access_key_id": peer.access_key,
        "secret_access_key": peer.secret_key,
        "timeout_seconds": 3,
    }
    return chosen | changes


AWAY = {"endpoint_url": "http://127.0.0.1:9", "timeout_seconds": 0.5}


def local(app: App) -> LocalStore:
    store = places_of(app).local
    assert isinstance(store, LocalStore)
    return store


def bucket(app: App) -> S3Store:
    store = places_of(app).bucket
    assert isinstance(store, S3Store)
    return store


def waiting(app: App) -> list[date]:
    return pending_uploads(facts.noted(app.engine))


def events(app: App) -> set[tuple[date, SnapshotStore, SnapshotEvent]]:
    return {(each.date, each.store, each.event) for each in facts.noted(app.engine)}


def test_a_snapshot_holds_what_the_product_is(engine: Engine, home: Path, tmp_path: Path) -> None:
    app = app_at(engine, home, snapshots={"secret_access_key": "s3cret"})
    found = taken(app)
    assert found.outcome is Outcome.TAKEN
    assert found.manifest.left_out == {}
    kinds = {entry.kind for entry in found.manifest.entries}
    assert kinds == set(EntryKind)
    unpack(local(app), found.manifest, tmp_path / "read")
    for sha in found.manifest.artifacts:
        here, there = home / "artifacts" / sha, tmp_path / "read" / "artifacts" / sha
        assert {p.name: p.read_bytes() for p in here.iterdir()} == {
            p.name: p.read_bytes() for p in there.iterdir()
        }
    documents = {
        name: json.loads((tmp_path / "read" / f"{name}.json").read_text())
        for name in ("policies", "allocation", "configuration", "manifest")
    }
    assert {policy["name"] for policy in documents["policies"]} >= {"prod", "agent", "classifier"}
    [experiment] = documents["allocation"]["experiments"]
    assert sum(arm["ppm"] for arm in experiment["arms"]) == 1_000_000
    assert "salt" not in experiment
    [account] = documents["allocation"]["accounts"]
    assert account["is_killed"] is False
    values = {row["key"]: row["value"] for row in documents["configuration"]}
    assert values["home"] == str(home)
    assert values["snapshots.secret_access_key"] == "***"
    everything = b"".join(p.read_bytes() for p in (tmp_path / "read").rglob("*") if p.is_file())
    assert b"s3cret" not in everything


def test_the_same_day_is_taken_once(engine: Engine, home: Path) -> None:
    first = taken(app_at(engine, home))
    again = taken(app_at(engine, home, days=0.4))
    assert (first.outcome, again.outcome) == (Outcome.TAKEN, Outcome.ALREADY)
    assert again.manifest == first.manifest
    assert count(engine, "snapshots") == 1
    later = taken(app_at(engine, home, days=1))
    assert (later.outcome, later.manifest.date) == (Outcome.TAKEN, TODAY + DAY)
    # What did not change is stored once.
    keys = list(local(app_at(engine, home)).keys("objects/"))
    assert len(keys) == len({e.sha256 for m in (first, later) for e in m.manifest.entries})


def test_a_day_to_come_has_no_snapshot(engine: Engine, home: Path) -> None:
    app = app_at(engine, home)
    assert day_of(app, None) == TODAY
    with pytest.raises(InvalidInput, match="--date: must be 2026-03-01 at most"):
        day_of(app, TODAY + DAY)


def test_a_damaged_policy_is_left_out_and_named(engine: Engine, home: Path) -> None:
    [sha, *_] = [p.name for p in (home / "artifacts").iterdir() if (p / "policy.onnx").exists()]
    (home / "artifacts" / sha / "weights.safetensors").write_bytes(b"")
    found = taken(app_at(engine, home)).manifest
    assert list(found.left_out) == [f"artifacts/{sha}"]
    assert sha not in found.artifacts
    assert len(found.artifacts) >= 1


def test_it_lands_here_while_the_bucket_is_away_and_goes_up_later(
    engine: Engine, home: Path, peer: S3Peer
) -> None:
    settings = bucket_settings(peer)
    found = taken(app_at(engine, home, snapshots=settings | AWAY))
    assert found.outcome is Outcome.TAKEN
    assert found.pending == (TODAY,)
    assert "EndpointConnectionError" in found.problems[0]
    app = app_at(engine, home, days=1, snapshots=settings)
    assert waiting(app) == [TODAY]
    assert copies.dates_in(bucket(app)) == []
    found = taken(app)
    assert found.uploaded == (TODAY, TODAY + DAY)
    assert waiting(app) == []
    assert copies.dates_in(bucket(app)) == [TODAY, TODAY + DAY]
    assert [each.problem for each in verify(app, places_of(app), day=None, actor="test")] == [
        None
    ] * 4


def test_another_machines_snapshot_of_the_day_stands(
    engine: Engine, home: Path, peer: S3Peer, tmp_path: Path
) -> None:
    settings = bucket_settings(peer)
    # Both took the day while the bucket was away, from one ledger.
    other = tmp_path / "other"
    shutil.copytree(home / "artifacts", other / "artifacts")
    ours = taken(app_at(engine, home, snapshots=settings | AWAY)).manifest
    theirs = taken(app_at(engine, other, days=0.1, snapshots=settings | AWAY)).manifest
    assert ours != theirs
    store = places_of(app_at(engine, other, snapshots=settings))
    assert store.bucket is not None
    copies.copy(store.local, store.bucket, theirs, settled=None)
    app = app_at(engine, home, snapshots=settings)
    found = upload(app, places_of(app), actor="test")
    assert (found.uploaded, found.others, found.pending) == ([], [TODAY], [])
    assert copies.manifest_in(bucket(app), TODAY) == theirs
    assert copies.dates_in(local(app)) == []
    again = taken(app)
    assert (again.outcome, again.manifest) == (Outcome.ALREADY, theirs)


def test_a_bucket_of_another_ledger_is_left_alone(
    engine: Engine, home: Path, peer: S3Peer, empty_url: str, tmp_path: Path
) -> None:
    settings = bucket_settings(peer)
    taken(app_at(engine, home, snapshots=settings))
    upgrade(empty_url)
    second = create_engine(empty_url)
    store_policies(second, tmp_path / "second")
    with pytest.raises(Conflict, match="is of ledger"):
        taken(app_at(second, tmp_path / "second", snapshots=settings))
    second.dispose()


def test_a_cold_rollback_finds_its_policy_again(engine: Engine, home: Path) -> None:
    app = app_at(engine, home)
    made = taken(app).manifest
    policies = sorted(made.artifacts)
    shutil.rmtree(home / "artifacts")
    assert sorted(put_back(local(app), made, home)) == policies
    for sha in policies:
        if (home / "artifacts" / sha / "policy.onnx").exists():
            assert read(home / "artifacts", sha).sha == sha  # type: ignore[arg-type]
    assert put_back(local(app), made, home) == []


def test_the_next_store_is_asked_where_the_first_is_damaged(
    engine: Engine, home: Path, peer: S3Peer, tmp_path: Path
) -> None:
    app = app_at(engine, home, snapshots=bucket_settings(peer))
    made = taken(app).manifest
    victim = home / "snapshots" / made.entries[0].key
    victim.write_bytes(victim.read_bytes()[:-1])
    stores = {store.kind: (store, made.sha256) for store in places_of(app)}
    assert restore(stores, TODAY, into=tmp_path / "read", home=None).store == "s3"
    checked = verify(app, places_of(app), day=TODAY, actor="test")
    assert [(one.store, one.problem is None) for one in checked] == [("local", False), ("s3", True)]
    assert (TODAY, SnapshotStore.LOCAL, SnapshotEvent.DAMAGED) in events(app)
    assert (TODAY, SnapshotStore.S3, SnapshotEvent.VERIFIED) in events(app)
    del stores["s3"]
    with pytest.raises(SnapshotDamaged):
        restore(stores, TODAY, into=tmp_path / "none", home=None)
    assert not (tmp_path / "none").exists()
    with pytest.raises(BlobMissing):
        restore(stores, TODAY - DAY, into=tmp_path / "none", home=None)


def test_nothing_is_written_over_what_is_there(engine: Engine, home: Path, tmp_path: Path) -> None:
    app = app_at(engine, home)
    made = taken(app).manifest
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(InvalidInput, match="--into"):
        unpack(local(app), made, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    unpack(local(app), made, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full", "home"]


def test_retention_keeps_what_is_needed(engine: Engine, home: Path, peer: S3Peer) -> None:
    settings = bucket_settings(peer, keep_days=2, keep_weeks=0)
    [sha, *_] = [p.name for p in (home / "artifacts").iterdir() if (p / "policy.onnx").exists()]
    for number in range(5):
        if number == 2:  # purged: from here on only old snapshots have it
            shutil.rmtree(home / "artifacts" / sha)
        taken(app_at(engine, home, days=number, snapshots=settings))
    app = app_at(engine, home, days=4, snapshots=settings)
    planned = prune(app, places_of(app), day=TODAY + 4 * DAY, actor="test", dry_run=True)
    before = list(bucket(app).keys())
    assert [each.day for each in planned["s3"].dates] == [1, 3]
    assert list(bucket(app).keys()) == before
    done = prune(app, places_of(app), day=TODAY + 4 * DAY, actor="test")
    for store in places_of(app):
        assert done[store.kind].dates == planned[store.kind].dates
        assert [each.day for each in copies.dates_in(store)] == [2, 4, 5]
    assert copies.manifest_in(bucket(app), TODAY + DAY).artifacts.keys() >= {sha}
    again = prune(app, places_of(app), day=TODAY + 4 * DAY, actor="test")
    assert [each.dates for each in again.values()] == [(), ()]
    assert waiting(app) == []
    # What is gone there does not come back from here.
    assert upload(app, places_of(app), actor="test").uploaded == []


def test_what_waits_for_the_bucket_stays(engine: Engine, home: Path, peer: S3Peer) -> None:
    settings = bucket_settings(peer, keep_days=1, keep_weeks=0) | AWAY
    for number in range(3):
        taken(app_at(engine, home, days=number, snapshots=settings))
    app = app_at(engine, home, days=2, snapshots=settings)
    with pytest.raises(StoreUnavailable):
        prune(app, places_of(app), day=TODAY + 2 * DAY, actor="test")
    assert len(copies.dates_in(local(app))) == 3


def test_only_old_orphans_are_swept(engine: Engine, home: Path) -> None:
    app = app_at(engine, home)
    made = taken(app).manifest
    store = local(app)
    fresh, old = b"fresh", b"old"
    keys = {}
    for content in (fresh, old):
        sha = hashlib.sha256(content).hexdigest()
        keys[content] = f"objects/sha256/{sha[:2]}/{sha}"
        store.put(keys[content], content)
    store.put("objects/readme", b"of somebody else")
    moment = NOON.timestamp()
    for path in (home / "snapshots").rglob("*"):
        os.utime(path, (moment, moment))
    os.utime(home / "snapshots" / keys[old], (moment - 90_000, moment - 90_000))
    swept = prune(app, places_of(app), day=TODAY, actor="test")["local"]
    assert swept.objects == 1
    left = set(store.keys())
    assert keys[fresh] in left
    assert "objects/readme" in left
    copies.check(store, made)


def test_while_a_manifest_is_damaged_no_object_goes(engine: Engine, home: Path) -> None:
    app = app_at(engine, home)
    taken(app)
    path = home / "snapshots" / manifest_key(TODAY)
    path.write_bytes(path.read_bytes()[:-2])
    for each in (home / "snapshots").rglob("*"):
        os.utime(each, (0, 0))
    before = list(local(app).keys())
    assert prune(app, places_of(app), day=TODAY, actor="test")["local"].objects == 0
    assert list(local(app).keys()) == before
    with pytest.raises(SnapshotDamaged):
        taken(app)


def test_a_manifest_that_the_ledger_does_not_know_is_refused(
    engine: Engine, home: Path, tmp_path: Path
) -> None:
    """Whoever can write to the store cannot put another sound snapshot in the place of one."""
    app = app_at(engine, home)
    made = taken(app).manifest
    other = app_at(engine, home, days=0.2, snapshots={"local_dir": str(tmp_path / "forged")})
    copies.write(local(other), _as_of(other), _bodies(other), settled=None)
    shutil.rmtree(home / "snapshots")
    shutil.copytree(tmp_path / "forged", home / "snapshots")
    [checked] = verify(app, places_of(app), day=TODAY, actor="test")
    assert "must have the SHA-256 that the ledger knows" in str(checked.problem)
    with pytest.raises(SnapshotDamaged, match="that the ledger knows"):
        restore({"local": (local(app), made.sha256)}, TODAY, into=tmp_path / "x", home=None)


def _as_of(app: App) -> Any:
    return contents(app, settings_rows(app), day=TODAY).manifest


def _bodies(app: App) -> Any:
    return contents(app, settings_rows(app), day=TODAY).bodies


# Killed anywhere, begun again.

_STEPS = ("fsync", "rename", "link", "mkdir")


def _killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a copy of this process that kills itself at a step; False once it has none."""
    child = os.fork()
    if child == 0:
        left = [step]

        def dies(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for name in _STEPS:
            setattr(os, name, dies(getattr(os, name)))
        S3Store._call = dies(S3Store._call)  # type: ignore[method-assign]
        facts.note = dies(facts.note)
        try:
            work()
        except BaseException:  # noqa: BLE001 - no exception may leave the copy
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_step_comes_to_the_same_end(
    engine: Engine, peer: S3Peer, tmp_path: Path, stride: int
) -> None:
    home = tmp_path / "home"
    store_policies(engine, home, is_small=True)
    engine.dispose()  # a copy of this process must not share its connections
    killed = 0
    for number, step in enumerate(range(1, 10_000, stride)):
        folder, day = tmp_path / str(step), TODAY + number * DAY
        shutil.copytree(home, folder)
        settings = bucket_settings(peer)
        work = partial(_take_alone, engine.url, folder, number, settings)
        was_killed = _killed_at(step, work)
        killed += was_killed
        app = app_at(engine, folder, days=number, snapshots=settings)
        found = taken(app)
        assert found.pending == ()
        for store in places_of(app):
            assert copies.dates_in(store) == [day]
            made = copies.manifest_in(store, day, known_sha256=found.manifest.sha256)
            copies.check(store, made)
            later = app.clock.now() + timedelta(days=36_500)
            copies.prune(store, gone=(), now=later)
            named = {entry.key for entry in made.entries}
            assert {*store.keys()} == {*named, manifest_key(day)}
        assert {e for e in events(app) if e[0] == day} == {
            (day, SnapshotStore.LOCAL, SnapshotEvent.STORED),
            (day, SnapshotStore.S3, SnapshotEvent.STORED),
        }
        engine.dispose()
        shutil.rmtree(folder)
        if not was_killed:
            break
    assert killed * stride > 80


def _take_alone(url: Any, home: Path, days: int, settings: dict[str, Any]) -> None:
    own = create_engine(url)
    taken(app_at(own, home, days=days, snapshots=settings))


def test_two_takers_at_once_make_one_snapshot(engine: Engine, home: Path, peer: S3Peer) -> None:
    settings = bucket_settings(peer)
    gate, found = threading.Barrier(4), list[Any]()

    def run(number: int) -> None:
        app = app_at(engine, home, days=number / 100, snapshots=settings)
        with engine.connect():  # one for each: none has to be made while everybody is busy
            gate.wait()
        try:
            found.append(taken(app).manifest.sha256)
        except BanditError as error:
            found.append(error)

    threads = [threading.Thread(target=run, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1, found
    app = app_at(engine, home, snapshots=settings)
    assert copies.manifest_in(bucket(app), TODAY).sha256 == found[0]
    assert [one.problem for one in verify(app, places_of(app), day=None, actor="test")] == [
        None,
        None,
    ]


def test_a_hostile_artefact_is_never_put_in_its_place(
    engine: Engine, home: Path, tmp_path: Path
) -> None:
    """A sound snapshot of an artefact that no service would read."""
    app = app_at(engine, home)
    made = taken(app).manifest
    store = local(app)
    files = {"spec.json": b"{}", "weights.safetensors": b"\x80\x05cos\nsystem\n."}
    sha = seal(tmp_path / "sealed", files)
    entries = []
    for path in (tmp_path / "sealed" / sha).iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = f"artifacts/{sha}/{path.name}"
        size = path.stat().st_size
        entry = Entry(path=name, sha256=digest, size=size, kind=EntryKind.POLICY)
        store.put(entry.key, path.read_bytes())
        entries.append(entry)
    joined = tuple(sorted([*made.entries, *entries], key=lambda entry: entry.path))
    hostile = replace(made, entries=joined)
    copies.check(store, hostile)
    shutil.rmtree(home / "artifacts")
    with pytest.raises(ArtifactRefused):
        put_back(store, hostile, home)
    assert not (home / "artifacts").exists()
    with pytest.raises(ArtifactRefused):
        unpack(store, hostile, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_while_the_bucket_is_away_nothing_in_it_is_called_damaged(
    engine: Engine, home: Path, peer: S3Peer
) -> None:
    settings = bucket_settings(peer)
    taken(app_at(engine, home, snapshots=settings))
    app = app_at(engine, home, snapshots=settings | AWAY)
    checked = verify(app, places_of(app), day=None, actor="test")
    assert [(one.store, one.problem is None) for one in checked] == [("local", True), ("s3", False)]
    assert {e for e in events(app) if e[2] is SnapshotEvent.DAMAGED} == set()


def test_a_damaged_file_keeps_no_other_day_from_the_bucket(
    engine: Engine, home: Path, peer: S3Peer
) -> None:
    settings = bucket_settings(peer)
    taken(app_at(engine, home, snapshots=settings | AWAY))
    (home / "snapshots" / "manifests" / "2026-02-01.json").write_text("{}")
    app = app_at(engine, home, snapshots=settings)
    found = upload(app, places_of(app), actor="test")
    assert found.uploaded == [TODAY]
    assert [problem[:10] for problem in found.problems] == ["2026-02-01"]
