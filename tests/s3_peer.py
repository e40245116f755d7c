"""A real S3 server on this machine, over HTTP, that refuses who has no key."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from snapshots.s3_store import S3Place, S3Store

REGION = "eu-central-1"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_names = count(1)
_ALL_OF_S3 = (
    '{"Version": "2012-10-17", "Statement": '
    '[{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
)


@dataclass(frozen=True, kw_only=True)
class S3Peer:
    """The server: where it listens, and the one pair of keys that it knows."""

    port: int
    access_key: str
    secret_key: str

    def place(self, *, bucket: str, port: int | None = None, **changes: Any) -> S3Place:
        """A bucket as our store reaches it, perhaps through the port of a proxy."""
        chosen: dict[str, Any] = {
            "endpoint_url": f"http://127.0.0.1:{port or self.port}",
            "region": REGION,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "timeout_seconds": 5.0,
        }
        return S3Place(bucket=bucket, **(chosen | changes))

    def client(self, service: str = "s3", **settings: Any) -> Any:
        """What AWS's own tools would use."""
        keys = {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
        }
        return boto3.session.Session().client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
            **(keys | settings),
        )

    def bucket(self, **made: Any) -> str:
        """A new bucket."""
        name = f"ledger-{next(_names)}"
        where = {"LocationConstraint": REGION}
        self.client().create_bucket(Bucket=name, CreateBucketConfiguration=where, **made)
        return name

    def store(self, *, bucket: str | None = None, **changes: Any) -> S3Store:
        """Our store on a bucket, a new one if none is named."""
        return S3Store(self.place(bucket=bucket or self.bucket(), **changes), now=lambda: NOON)


@contextmanager
def s3_peer() -> Iterator[S3Peer]:
    """Run moto's server as a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        # The three calls that make the user; whoever comes later needs the key.
        # And pages of ten, so that a test need not store a thousand for the second page.
        env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3", "MOTO_S3_DEFAULT_MAX_KEYS": "10"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _with_keys(port, server)
    finally:
        server.terminate()
        server.wait(timeout=20)


def _with_keys(port: int, server: subprocess.Popen[bytes]) -> S3Peer:
    admin = S3Peer(port=port, access_key="first", secret_key="first").client("iam")  # noqa: S106
    while True:
        try:
            admin.create_user(UserName="ledger")
        except BotoCoreError:
            assert server.poll() is None, "moto's server did not start"
            continue
        break
    admin.put_user_policy(UserName="ledger", PolicyName="s3", PolicyDocument=_ALL_OF_S3)
    made = admin.create_access_key(UserName="ledger")["AccessKey"]
    return S3Peer(port=port, access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"])
