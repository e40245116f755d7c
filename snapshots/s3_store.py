"""Blobs as objects of a bucket, on AWS or whatever else speaks S3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from snapshots.blob_store import (
    BLOB_SIZE_MAX,
    BlobDamaged,
    BlobExists,
    BlobFacts,
    BlobMissing,
    BlobTooLarge,
    StoreUnavailable,
    body_sha256,
    checked_key,
)
from snapshots.local_store import new_file

PART_BYTES: Final = 8 * 1024 * 1024
"""A larger blob goes up in parts of this size; S3 takes no smaller ones but the last."""
ATTEMPTS: Final = 3
_ALGORITHM: Final = "SHA256"
_CHUNK_BYTES: Final = 1024 * 1024
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_THERE = frozenset({"412", "PreconditionFailed"})
_NO_LOCKS = frozenset(
    {"ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed"}
)


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """A part of a bucket, and how it is reached.

    Without an `endpoint_url` it is on AWS; without keys they are looked for as AWS tools do.
    `timeout_seconds` bounds each wait for an answer. What is stored cannot be changed for
    `lock_days` where the bucket has Object Lock, and is encrypted as the bucket does by itself, or
    by `encryption`: AES256, aws:kms.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 20.0
    lock_days: int = 0
    encryption: str | None = None


class S3Store:
    """A `BlobStore` in a bucket."""

    kind = "s3"

    def __init__(self, place: S3Place, *, now: Callable[[], datetime]) -> None:
        """Reach for nothing yet; `now` says until when things are locked."""
        self._place = place
        self._now = now
        self._prefix = f"{place.prefix.strip('/')}/" if place.prefix.strip("/") else ""

    def put(self, key: str, body: bytes | Path, *, if_absent: bool = False) -> None:
        """Store one object and read it back; a large one goes up in parts, and appears whole."""
        sha256 = body_sha256(body)
        size = len(body) if isinstance(body, bytes) else body.stat().st_size
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with self._told(key):
            is_new = False
            with _passing(_THERE):
                if size > PART_BYTES:
                    self._put_parts(key, body, condition)
                else:
                    self._put_whole(key, body, condition)
                is_new = True
            is_right = self._sha256(key) == sha256
            if is_new and not is_right:
                # What nobody can trust must not stand in the way of the next attempt.
                self._call("delete_object", key)
                raise BlobDamaged(f"{key}: the bucket holds other bytes than were sent")
            if not is_right:
                raise BlobExists(f"other bytes are kept under {key} already")
            if not is_new:
                self._lock_on(key)

    def get(self, key: str, *, size_max: int = BLOB_SIZE_MAX) -> bytes:
        """Return the bytes of one object."""
        with self._told(key):
            return self._again(lambda: b"".join(self._chunks(key, size_max=size_max)))

    def get_file(self, key: str, into: Path, *, size_max: int | None = None) -> None:
        """Write one object to a file."""
        with self._told(key), new_file(into) as file:
            self._again(lambda: self._write(key, file, size_max=size_max))

    def facts(self, key: str) -> BlobFacts:
        """Return the size of one object and when it was stored."""
        with self._told(key):
            found = self._call("head_object", key)
        return BlobFacts(size=found["ContentLength"], stored_at=found["LastModified"])

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the objects under the place's prefix, page by page."""
        with self._told(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._place.bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for found in page.get("Contents", []):
                    yield found["Key"].removeprefix(self._prefix)

    def delete(self, key: str) -> None:
        """Remove one object; where the bucket keeps versions it keeps this one as an old one."""
        with self._told(key):
            self._call("delete_object", key)

    def forget_unfinished(self, *, before: datetime) -> int:
        """Abort uploads in parts that began before a moment."""
        forgotten = 0
        with self._told(""):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._place.bucket, Prefix=self._prefix
            )
            for upload in [one for page in pages for one in page.get("Uploads", [])]:
                if upload["Initiated"] < before:
                    key = upload["Key"].removeprefix(self._prefix)
                    with _passing({"NoSuchUpload"}):  # its writer is done
                        self._call("abort_multipart_upload", key, UploadId=upload["UploadId"])
                        forgotten += 1
        return forgotten

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        place = self._place
        limits = Config(
            connect_timeout=min(5.0, place.timeout_seconds),
            read_timeout=place.timeout_seconds,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            # The checksums that AWS adds by itself are unknown to other servers; we send our own.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "auto" if place.endpoint_url is None else "path"},
        )
        # A session of our own: the one that boto3 shares may be used by one thread only.
        return boto3.session.Session().client(
            "s3",
            endpoint_url=place.endpoint_url,
            region_name=place.region,
            aws_access_key_id=place.access_key,
            aws_secret_access_key=place.secret_key,
            config=limits,
        )

    @cached_property
    def _has_locks(self) -> bool:
        has_locks = False
        if self._place.lock_days > 0:
            with _passing(_NO_LOCKS):
                self._client.get_object_lock_configuration(Bucket=self._place.bucket)
                has_locks = True
        return has_locks

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        name = self._prefix + checked_key(key)
        return getattr(self._client, operation)(Bucket=self._place.bucket, Key=name, **arguments)

    def _kept(self) -> dict[str, Any]:
        """Return how a new object is to be kept: encrypted, locked."""
        kept: dict[str, Any] = {}
        if self._place.encryption is not None:
            kept["ServerSideEncryption"] = self._place.encryption
        if self._has_locks:
            kept["ObjectLockMode"] = "GOVERNANCE"
            kept["ObjectLockRetainUntilDate"] = self._until()
        return kept

    def _until(self) -> datetime:
        return self._now() + timedelta(days=self._place.lock_days)

    def _lock_on(self, key: str) -> None:
        """Lock what was stored before for as long as if it were stored now."""
        if self._has_locks:
            until = {"Mode": "GOVERNANCE", "RetainUntilDate": self._until()}
            self._call("put_object_retention", key, Retention=until)

    def _put_whole(self, key: str, body: bytes | Path, condition: Mapping[str, str]) -> None:
        content = body if isinstance(body, bytes) else body.read_bytes()
        sent = {"Body": content, **_checked(content), **condition, **self._kept()}
        self._call("put_object", key, **sent)

    def _put_parts(self, key: str, body: bytes | Path, condition: Mapping[str, str]) -> None:
        made = self._call(
            "create_multipart_upload", key, ChecksumAlgorithm=_ALGORITHM, **self._kept()
        )
        upload = {"UploadId": _answered(made, "UploadId", key)}
        try:
            parts = [
                self._put_part(key, number, part, upload)
                for number, part in enumerate(_parts(body), start=1)
            ]
            whole = {"MultipartUpload": {"Parts": parts}}
            with _passing({"NoSuchUpload"}):  # made whole, but the answer was lost
                self._call("complete_multipart_upload", key, **whole, **upload, **condition)
        except BaseException:
            with suppress(*_failures()):  # `forget_unfinished` does it later
                self._call("abort_multipart_upload", key, **upload)
            raise

    def _put_part(
        self, key: str, number: int, part: bytes, upload: Mapping[str, str]
    ) -> dict[str, object]:
        checked = _checked(part)
        made = self._call("upload_part", key, PartNumber=number, Body=part, **upload, **checked)
        return {
            "PartNumber": number,
            "ETag": _answered(made, "ETag", key),
            "ChecksumSHA256": checked["ChecksumSHA256"],
        }

    def _sha256(self, key: str) -> str:
        def hashed() -> str:
            digest = hashlib.sha256()
            for chunk in self._chunks(key, size_max=None):
                digest.update(chunk)
            return digest.hexdigest()

        return self._again(hashed)

    def _write(self, key: str, file: BinaryIO, *, size_max: int | None) -> None:
        file.seek(0)
        file.truncate()
        for chunk in self._chunks(key, size_max=size_max):
            file.write(chunk)

    def _chunks(self, key: str, *, size_max: int | None) -> Iterator[bytes]:
        found = self._call("get_object", key)
        with closing(found["Body"]) as body:
            if size_max is not None and found["ContentLength"] > size_max:
                raise BlobTooLarge(f"{key}: must have at most {size_max} bytes, found more")
            yield from body.iter_chunks(_CHUNK_BYTES)

    def _again(self, read: Callable[[], T]) -> T:
        """Read once more what broke off midway: no library does that for a body."""
        from botocore.exceptions import BotoCoreError

        for _ in range(ATTEMPTS - 1):
            with suppress(BotoCoreError):
                return read()
        return read()

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Say in our words what the store says; its own may quote headers."""
        where = f"{self._place.bucket}/{self._prefix}{key}"
        try:
            yield
        except _failures() as error:
            if _code(error) in _MISSING:
                raise BlobMissing(f"nothing is kept under {where}") from None
            found = _code(error) or type(error).__name__
            raise StoreUnavailable(f"{where}: {found}") from None


def _failures() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return (BotoCoreError, ClientError, ResponseParserError)


def _answered(answer: Mapping[str, Any], name: str, key: str) -> str:
    """Return a field of an answer, which lacks it where the connection was cut before it."""
    found = answer.get(name)
    if found is None:
        raise StoreUnavailable(f"{key}: the bucket's answer broke off before its {name}")
    return str(found)


def _code(error: Exception) -> str | None:
    """Return what the store answered; None where there was no answer."""
    response = getattr(error, "response", None)
    return response["Error"]["Code"] if isinstance(response, dict) else None


@contextmanager
def _passing(codes: Collection[str]) -> Iterator[None]:
    """Pass over these answers, and no others."""
    try:
        yield
    except _failures() as error:
        if _code(error) not in codes:
            raise


def _checked(content: bytes) -> dict[str, str]:
    """Return the checksum by which the store refuses what was changed on the way, if it looks."""
    sha256 = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return {"ChecksumAlgorithm": _ALGORITHM, "ChecksumSHA256": sha256}


def _parts(body: bytes | Path) -> Iterator[bytes]:
    if isinstance(body, bytes):
        for at in range(0, len(body), PART_BYTES):
            yield body[at : at + PART_BYTES]
        return
    with body.open("rb") as file:
        while part := file.read(PART_BYTES):
            yield part
