"""The service's own sections; every key here is in force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints

from bandit.core.kill_switch import DailyLossRelease
from bandit.core.model import Profile, Strategy
from config.section import Count, Number, Section, setting


def _readable_url(url: str) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(url)
    except (ArgumentError, ValueError):
        rule = "must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE; write @ : / in a part as %40"
        # `from None`, as the original quotes a part, perhaps of the password.
        raise ValueError(f"{rule} %3A %2F") from None
    return url


PostgresUrl = Annotated[
    str,
    StringConstraints(pattern=r"^postgresql(\+psycopg)?://"),
    AfterValidator(_readable_url),
]


class Database(Section):
    """The Postgres server that holds the ledger."""

    url: PostgresUrl | None = setting(
        None,
        meaning="Server to use; empty starts the embedded one under `home`.",
        unit="postgresql:// URL",
        environment="LIVEOPS_DATABASE_URL",
        repr=False,  # it may carry a password
    )


class Server(Section):
    """Where the HTTP API listens, and where operators still reach it when others crowd it."""

    host: str = setting("127.0.0.1", meaning="Address to listen on.", unit="host name or address")
    port: Count = setting(
        8800,
        meaning="Port to listen on.",
        unit="TCP port",
        environment="LIVEOPS_PORT",
        ge=1,
        le=65535,
    )
    admin_host: str = setting(
        "127.0.0.1", meaning="Address of the admin listener.", unit="host name or address"
    )
    admin_port: Count = setting(
        8801,
        meaning="Port of the admin listener, for operators and probes; 0 starts none.",
        unit="TCP port",
        environment="LIVEOPS_ADMIN_PORT",
        ge=0,
        le=65535,
    )
    health_host: str = setting(
        "127.0.0.1", meaning="Address of the health listener.", unit="host name or address"
    )
    health_port: Count = setting(
        0,
        meaning="Port of one more listener for health and metrics alone, such as 9090; 0: none.",
        unit="TCP port",
        environment="LIVEOPS_HEALTH_PORT",
        ge=0,
        le=65535,
    )


class ExperimentDefaults(Section):
    """What a new experiment gets; the size of its trades is `risk.base_position_size`."""

    profile: Profile = setting(
        Profile.GUARDED,
        meaning="guarded caps unproven arms, seed_exact keeps to the letter, observe only logs.",
        unit="name",
    )
    strategy: Strategy = setting(
        Strategy.RAMP, meaning="Allocator that proposes the nightly weights.", unit="name"
    )
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{2,10}$")] = setting(
        "USD", meaning="Currency of capital and P&L.", unit="currency code"
    )
    decision_seconds_valid: Number = setting(
        2.0, meaning="A decision expires after this time.", unit="seconds", gt=0, le=3600
    )


class Audit(Section):
    """What keeps the audit log honest."""

    anchor_dir: Path | None = setting(
        None,
        meaning="Directory of the chain's anchors, best on another disk; empty is under `home`.",
        unit="path",
    )


class Ageing(Section):
    """How long settled decisions stay in the ledger before they leave for archive files."""

    after_days: int = setting(
        365,
        ge=30,
        le=36500,
        meaning="Age at which a settled decision leaves; keys, answers and numbers stay.",
        unit="days",
    )
    archive_dir: Path | None = setting(
        None,
        meaning="Directory of the archives, best one that is backed up; empty is under `home`.",
        unit="path",
    )


class Backups(Section):
    """Backups of the ledger and of what must stay stopped, and when they are missed."""

    directory: Path | None = setting(
        None,
        meaning="Directory of the backups, best on another machine; empty: `backups` in `home`.",
        unit="path",
    )
    upload: bool = setting(
        False,
        meaning="Send backups to `snapshots.bucket` as well, and again later where that fails.",
        unit="true or false",
    )
    keep_days: Count = setting(
        30,
        meaning="Older backups are removed, but never the newest of its kind.",
        unit="days",
        ge=1,
        le=36_500,
    )
    wal_archive_dir: Path | None = setting(
        None,
        meaning="The embedded server copies its log there, for restores to any moment; empty: no.",
        unit="path",
    )
    state_age_max_minutes: Number = setting(
        75.0,
        meaning="An older newest state backup is an issue of health.",
        unit="minutes",
        gt=0,
        le=525_600,
    )
    database_age_max_hours: Number = setting(
        26.0,
        meaning="An older newest backup of the ledger is an issue of health.",
        unit="hours",
        gt=0,
        le=87_600,
    )
    drill_age_max_days: Number = setting(
        8.0,
        meaning="RestoreDrillStale above this age of the newest drill that passed.",
        unit="days",
        gt=0,
        le=3650,
    )


class KillSwitch(Section):
    """The switch that stops every decision of an account."""

    latch_file: Path | None = setting(
        None,
        meaning="File that kills every account while it exists; empty: KILLED in `home`.",
        unit="path",
    )
    daily_loss_release: DailyLossRelease = setting(
        DailyLossRelease.MANUAL,
        meaning="Who releases after the day's loss: a person, or the next_day by itself.",
        unit="name",
    )


class Breakers(Section):
    """The circuit breakers round whatever the service calls outside itself."""

    failures_max: Count = setting(
        3, meaning="A breaker opens after so many failures in a row.", unit="calls", ge=1, le=1000
    )
    recovery_seconds: Number = setting(
        60.0, meaning="An open one lets a probe out after this time.", unit="seconds", gt=0, le=3600
    )


class Scheduler(Section):
    """What begins the jobs of the schedule."""

    in_service: bool = setting(
        False,
        meaning="`liveops serve` runs a scheduler too; of several replicas, one leads.",
        unit="true or false",
    )


class Logging(Section):
    """What is written to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", meaning="Least severe event that is logged.", unit="name"
    )
