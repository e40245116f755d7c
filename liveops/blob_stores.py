"""The places where blobs are kept, as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from liveops.ledger_server import snapshot_dir
from snapshots.local_store import LocalStore
from snapshots.s3_store import S3Place, S3Store

if TYPE_CHECKING:
    from pydantic import SecretStr

    from config.settings import Settings


def local_store(settings: Settings, *, demo: bool) -> LocalStore:
    """Return the directory of snapshots on this machine."""
    return LocalStore(snapshot_dir(settings, demo=demo))


def bucket_store(settings: Settings, *, now: Callable[[], datetime]) -> S3Store | None:
    """Return the bucket; None where none is set. It is not reached for yet."""
    chosen = settings.snapshots
    if chosen.bucket is None:
        return None
    place = S3Place(
        bucket=chosen.bucket,
        prefix=chosen.prefix or "",
        endpoint_url=chosen.endpoint_url,
        region=chosen.region,
        access_key=_text(chosen.access_key_id),
        secret_key=_text(chosen.secret_access_key),
        timeout_seconds=chosen.timeout_seconds,
        lock_days=chosen.lock_days,
        encryption=chosen.encryption,
    )
    return S3Store(place, now=now)


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
