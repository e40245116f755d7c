"""A bucket behind a network that fails: whatever happens, all of a snapshot is there, or none."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from fault_proxy import FaultProxy
from s3_peer import NOON, S3Peer, s3_peer

from snapshots.blob_store import BlobExists, BlobMissing, StoreUnavailable
from snapshots.s3_store import ATTEMPTS, PART_BYTES, S3Store

LARGE = bytes(range(256)) * (PART_BYTES // 256 + 1)


@pytest.fixture(scope="module")
def peer() -> Iterator[S3Peer]:
    with s3_peer() as running:
        yield running


@pytest.fixture
def proxy(peer: S3Peer) -> Iterator[FaultProxy]:
    with FaultProxy(target=f"127.0.0.1:{peer.port}").running() as running:
        yield running


@pytest.fixture
def bucket(peer: S3Peer) -> str:
    return peer.bucket()


@pytest.fixture
def store(peer: S3Peer, proxy: FaultProxy, bucket: str) -> S3Store:
    """A store that knows the bucket through the proxy alone."""
    place = peer.place(bucket=bucket, port=proxy.port, timeout_seconds=2.0)
    return S3Store(place, now=lambda: NOON)


@pytest.fixture
def near(peer: S3Peer, bucket: str) -> S3Store:
    return peer.store(bucket=bucket)


def test_a_server_that_is_busy_for_a_moment_is_asked_again(
    proxy: FaultProxy, store: S3Store, near: S3Store
) -> None:
    proxy.errors = ATTEMPTS - 1
    store.put("a", b"1", if_absent=True)
    assert proxy.errors == 0
    assert near.get("a") == b"1"


def test_a_server_that_stays_busy_is_told_of(
    proxy: FaultProxy, store: S3Store, near: S3Store
) -> None:
    proxy.errors = 1000
    with pytest.raises(StoreUnavailable):
        store.put("a", b"1", if_absent=True)
    proxy.errors = 0
    assert list(near.keys()) == []
    store.put("a", b"1", if_absent=True)


def test_an_answer_that_was_lost_after_the_write_is_no_second_writer(
    proxy: FaultProxy, store: S3Store, near: S3Store
) -> None:
    """The retry meets what its first attempt wrote: the same bytes, so it was stored."""
    proxy.lost = 1
    store.put("manifests/1", b"ours", if_absent=True)
    assert proxy.lost == 0
    assert near.get("manifests/1") == b"ours"
    proxy.cut()
    proxy.lost = 1
    with pytest.raises(BlobExists):
        store.put("manifests/1", b"theirs", if_absent=True)
    assert near.get("manifests/1") == b"ours"


def test_an_answer_that_never_comes_is_given_up(
    proxy: FaultProxy, store: S3Store, near: S3Store
) -> None:
    proxy.is_black_hole = True
    with pytest.raises(StoreUnavailable):
        store.put("a", b"1", if_absent=True)
    proxy.is_black_hole = False
    proxy.cut()
    assert list(near.keys()) == []
    store.put("a", b"1", if_absent=True)
    assert near.get("a") == b"1"


def test_a_body_that_breaks_off_is_read_again(
    proxy: FaultProxy, store: S3Store, near: S3Store
) -> None:
    near.put("large", LARGE)
    for _ in range(3):
        proxy.truncated = 1
        assert store.get("large") == LARGE
        proxy.cut()
    proxy.truncated = 1000
    with pytest.raises(StoreUnavailable):
        store.get("large")


def test_an_answer_that_breaks_off_in_its_headers_is_no_answer(
    proxy: FaultProxy, store: S3Store, near: S3Store
) -> None:
    proxy.headless = 1
    with pytest.raises(StoreUnavailable, match="large"):
        store.put("large", LARGE, if_absent=True)
    assert proxy.headless == 0
    assert list(near.keys()) == []
    store.put("large", LARGE, if_absent=True)
    assert near.get("large") == LARGE


def test_a_connection_that_is_cut_midway_leaves_nothing_to_see(
    proxy: FaultProxy, store: S3Store, near: S3Store
) -> None:
    proxy.bytes_per_second = 40_000_000.0
    rng = np.random.default_rng(5)
    seen = set()
    for number in range(8):
        key = f"large/{number}"
        timer = threading.Timer(float(rng.uniform(0.0, 0.6)), _away, [proxy])
        timer.start()
        try:
            store.put(key, LARGE, if_absent=True)
            seen.add(key)
        except StoreUnavailable:
            pass
        timer.join()
        proxy.is_refusing = False
        try:
            assert near.get(key) == LARGE
        except BlobMissing:
            assert key not in seen
        store.put(key, LARGE, if_absent=True)
        assert near.get(key) == LARGE


def _away(proxy: FaultProxy) -> None:
    proxy.is_refusing = True
    proxy.cut()
