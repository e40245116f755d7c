"""Where copies of the product's state are kept, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import SecretStr, StringConstraints

from config.section import Count, Number, Section, setting


class Snapshots(Section):
    """Daily snapshots of models, policies and configuration: in a bucket, or on this machine."""

    local_dir: Path | None = setting(
        None,
        meaning="Directory of snapshots, and of those a bucket did not take; empty: under `home`.",
        unit="path",
    )
    bucket: (
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None
    ) = setting(
        None,
        meaning="Bucket of AWS S3, or of what speaks as it does; empty: `local_dir` alone.",
        unit="name",
    )
    prefix: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=/-]{0,199}$")] | None
    ) = setting(
        None,
        meaning="What every key in the bucket begins with, such as production/btc.",
        unit="text",
    )
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://[^@?#\s]+$")] | None = (
        setting(None, meaning="Server of the bucket where it is not AWS.", unit="https:// URL")
    )
    region: str | None = setting(
        None, meaning="Region of the bucket; empty: as AWS's own tools find it.", unit="name"
    )
    access_key_id: SecretStr | None = setting(
        None,
        meaning="Key of the bucket; empty: as AWS's own tools find it.",
        unit="secret text",
    )
    secret_access_key: SecretStr | None = setting(
        None, meaning="Secret that belongs to `access_key_id`.", unit="secret text"
    )
    encryption: Literal["AES256", "aws:kms"] | None = setting(
        None, meaning="How the bucket is to encrypt; empty: as it does by itself.", unit="name"
    )
    lock_days: Count = setting(
        0,
        meaning="What is stored cannot be changed for so long, in a bucket with Object Lock.",
        unit="days",
        ge=0,
        le=3650,
    )
    timeout_seconds: Number = setting(
        20.0, meaning="Longest wait for an answer of the bucket.", unit="seconds", gt=0, le=600
    )
    keep_days: Count = setting(
        14, meaning="Every snapshot is kept for so long.", unit="days", ge=1, le=3650
    )
    keep_weeks: Count = setting(
        8, meaning="Then the first of each week, for so long in all.", unit="weeks", ge=0, le=520
    )
    stale_hours: Count = setting(
        36,
        meaning="SnapshotStale where the newest snapshot was stored longer ago.",
        unit="hours",
        ge=1,
        le=8760,
    )
