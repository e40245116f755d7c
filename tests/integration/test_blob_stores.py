"""What every place for blobs promises, over a directory and over a real S3 server."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from s3_peer import NOON, S3Peer, s3_peer

from bandit.core.errors import InvalidInput
from snapshots.blob_store import (
    BlobDamaged,
    BlobExists,
    BlobMissing,
    BlobStore,
    BlobTooLarge,
    StoreUnavailable,
)
from snapshots.local_store import PART, LocalStore
from snapshots.s3_store import PART_BYTES

# To moto every upload began in 2010.
LONG_AGO, LATER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
LARGE = bytes(range(256)) * (PART_BYTES // 256 + 1) * 2


@pytest.fixture(scope="module")
def peer() -> Iterator[S3Peer]:
    with s3_peer() as running:
        yield running


@pytest.fixture(params=["local", "s3", "s3_with_prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    peer: S3Peer = request.getfixturevalue("peer")
    prefix = "production/one/" if request.param == "s3_with_prefix" else ""
    return peer.store(prefix=prefix)


def test_what_was_put_is_got(store: BlobStore, tmp_path: Path) -> None:
    store.put("a/b/c", b"one")
    (tmp_path / "two").write_bytes(b"two")
    store.put("a/b/d", tmp_path / "two")
    assert (store.get("a/b/c"), store.get("a/b/d")) == (b"one", b"two")
    store.put("a/b/c", b"another")
    assert store.get("a/b/c") == b"another"
    store.put("empty", b"")
    assert store.get("empty") == b""


@pytest.mark.parametrize("as_file", [False, True])
def test_a_large_blob_comes_back_to_the_byte(
    store: BlobStore, tmp_path: Path, as_file: bool
) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    store.put("large", tmp_path / "large" if as_file else LARGE, if_absent=True)
    store.get_file("large", tmp_path / "back")
    assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == (
        hashlib.sha256(LARGE).digest()
    )
    with pytest.raises(FileExistsError):
        store.get_file("large", tmp_path / "back")
    with pytest.raises(BlobExists):
        store.put("large", LARGE[1:], if_absent=True)
    assert store.facts("large").size == len(LARGE)


def test_nothing_there_is_said(store: BlobStore, tmp_path: Path) -> None:
    for ask in (store.get, store.facts, lambda key: store.get_file(key, tmp_path / "x")):
        with pytest.raises(BlobMissing):
            ask("a/b")
    assert not (tmp_path / "x").exists()
    assert list(store.keys()) == []
    store.delete("a/b")


def test_keys_come_in_order_by_their_beginning(store: BlobStore) -> None:
    keys = [f"n/{number:04}" for number in range(12)] + ["m/1", "n-1"]
    for key in reversed(keys):
        store.put(key, key.encode())
    assert list(store.keys()) == sorted(keys)
    assert list(store.keys("n/")) == sorted(keys)[2:]
    assert list(store.keys("n/000")) == [f"n/{number:04}" for number in range(10)]
    store.delete("n/0003")
    assert "n/0003" not in list(store.keys())


def test_the_first_of_two_writers_stays(store: BlobStore) -> None:
    store.put("manifests/1", b"first", if_absent=True)
    with pytest.raises(BlobExists):
        store.put("manifests/1", b"second", if_absent=True)
    # The answer of the first attempt may have been lost: the same again is as good as done.
    store.put("manifests/1", b"first", if_absent=True)
    assert store.get("manifests/1") == b"first"


def test_one_of_many_writers_at_once_wins(store: BlobStore) -> None:
    bodies = [f"writer {number}".encode() for number in range(8)]
    gate, won = threading.Barrier(len(bodies)), list[bytes]()

    def write(body: bytes) -> None:
        gate.wait()
        try:
            store.put("lead", body, if_absent=True)
        except BlobExists:
            return
        won.append(body)

    threads = [threading.Thread(target=write, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.get("lead")]


def test_no_more_is_read_than_the_reader_can_take(store: BlobStore, tmp_path: Path) -> None:
    store.put("a", b"12345")
    assert store.get("a", size_max=5) == b"12345"
    with pytest.raises(BlobTooLarge):
        store.get("a", size_max=4)
    with pytest.raises(BlobTooLarge):
        store.get_file("a", tmp_path / "into", size_max=4)
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/etc/passwd", "..", "a/../b", "a//b", "a/", ".part-1", "a/.b", "a\n", "\xe4"),
        *("a b", "a" * 513, "\\\\host", "a\x00", "~", "-rf"),
    ],
)
def test_what_is_no_key_never_becomes_a_path(store: BlobStore, tmp_path: Path, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.facts(key),
        lambda: store.delete(key),
        lambda: store.get_file(key, tmp_path / "x"),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=r"^key: "):
            call()


def test_age_and_size_are_told(store: BlobStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 tells whole seconds
    store.put("a", b"123")
    found = store.facts("a")
    assert found.size == 3
    assert before <= found.stored_at <= datetime.now(UTC)


# A directory.


def test_a_part_is_no_blob_and_is_forgotten(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"whole")
    (tmp_path / "a" / f"{PART}1").write_bytes(b"hal")
    assert list(store.keys()) == ["a/b"]
    assert store.forget_unfinished(before=LONG_AGO) == 0
    assert store.forget_unfinished(before=LATER) == 1
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    store = LocalStore(tmp_path / "store")
    store.put("a/b", b"1")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "store" / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "store" / "pipe")
    for key in ("link", "folder/x", "pipe", "a"):
        with pytest.raises(StoreUnavailable):
            store.get(key)
    with pytest.raises(StoreUnavailable):
        store.put("folder/x", b"1")
    store.put("link", b"2")  # takes the link's place, and leaves alone what it led to
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert list((tmp_path / "outside").iterdir()) == []


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store").put("a/b", b"1")
    modes = [path.stat().st_mode & 0o777 for path in sorted((tmp_path / "store").rglob("*"))]
    assert modes == [0o700, 0o600]


def test_a_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        LocalStore(tmp_path / "store" / "in").put("a", b"1")


# A bucket.


def test_an_upload_that_broke_off_is_not_seen_and_is_forgotten(peer: S3Peer) -> None:
    store = peer.store(prefix="p")
    bucket = store._place.bucket
    made = peer.client().create_multipart_upload(Bucket=bucket, Key="p/large")
    peer.client().upload_part(
        Bucket=bucket, Key="p/large", UploadId=made["UploadId"], PartNumber=1, Body=b"1"
    )
    assert list(store.keys()) == []
    assert store.forget_unfinished(before=LONG_AGO) == 0
    assert store.forget_unfinished(before=LATER) == 1
    assert "Uploads" not in peer.client().list_multipart_uploads(Bucket=bucket)


def test_what_is_stored_is_locked_and_stays_so(peer: S3Peer) -> None:
    bucket = peer.bucket(ObjectLockEnabledForBucket=True)
    store = peer.store(bucket=bucket, lock_days=30)

    def until() -> datetime:
        kept = peer.client().head_object(Bucket=bucket, Key="a")
        assert kept["ObjectLockMode"] == "GOVERNANCE"
        found: datetime = kept["ObjectLockRetainUntilDate"]
        return found

    store.put("a", b"1", if_absent=True)
    assert until() == NOON + timedelta(days=30)
    peer.store(bucket=bucket, lock_days=60).put("a", b"1", if_absent=True)
    assert until() == NOON + timedelta(days=60)
    peer.store(bucket=peer.bucket(), lock_days=30).put("a", b"1")  # a bucket without locks


def test_a_bucket_is_asked_to_encrypt(peer: S3Peer) -> None:
    store = peer.store(encryption="AES256")
    store.put("a", b"1")
    store.put("large", LARGE)
    for key in ("a", "large"):
        found = peer.client().head_object(Bucket=store._place.bucket, Key=key)
        assert found["ServerSideEncryption"] == "AES256"


@pytest.mark.parametrize(
    "changes",
    [{"access_key": "AKIAWRONG"}, {"bucket": "no-such-bucket"}, {"access_key": None}],
)
def test_who_is_not_let_in_says_so_and_no_secret(peer: S3Peer, changes: dict[str, Any]) -> None:
    store = peer.store(**changes)
    for call in (lambda: store.put("a", b"1"), lambda: list(store.keys())):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert peer.secret_key not in str(caught.value)
        assert "AKIA" not in str(caught.value)
    assert peer.secret_key not in repr(store._place)


def test_nobody_there_is_said_within_the_time(peer: S3Peer) -> None:
    store = peer.store(endpoint_url="http://127.0.0.1:9", bucket="b", timeout_seconds=1.0)
    with pytest.raises(StoreUnavailable, match="EndpointConnectionError"):
        store.put("a", b"1")


def test_a_bucket_that_changes_what_it_keeps_is_caught(
    peer: S3Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = peer.store()
    sent = store._put_whole
    monkeypatch.setattr(store, "_put_whole", lambda key, body, how: sent(key, body + b"!", how))
    with pytest.raises(BlobDamaged):
        store.put("a", b"1", if_absent=True)
    monkeypatch.undo()
    store.put("a", b"1", if_absent=True)
    assert store.get("a") == b"1"
