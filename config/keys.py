"""API keys as the settings hold them: a name, what it may do, a hash, perhaps an end."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, StringConstraints

from config.scopes import LOCAL, OWNER, KeyScope
from config.section import Section, setting


def _once(scopes: tuple[KeyScope, ...]) -> tuple[KeyScope, ...]:
    if len(set(scopes)) < len(scopes):
        raise ValueError("must name each scope once")
    return scopes


def _not_reserved(name: str) -> str:
    if name in (OWNER, LOCAL):
        raise ValueError(f"must not be {OWNER} or {LOCAL}, which are the service's own names")
    return name


KeyName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$"),
    AfterValidator(_not_reserved),
]


class KeyEntry(Section):
    """One API key; several may share a name, so that two are valid while one replaces the other."""

    name: KeyName = setting(
        ..., meaning="Who calls; decisions and audit rows name it.", unit="name"
    )
    scopes: Annotated[tuple[KeyScope, ...], AfterValidator(_once)] = setting(
        ..., meaning="What the key opens.", unit="list of names", min_length=1
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = setting(
        ..., meaning="SHA-256 of the key; the key itself is stored nowhere.", unit="hexadecimal"
    )
    expires_at: AwareDatetime | None = setting(
        None, meaning="From then on the key is refused; empty means never.", unit="time with offset"
    )


def each_hash_once(entries: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
    """Refuse a key that stands under two entries: whose it is would depend on their order."""
    if len({entry.sha256 for entry in entries}) < len(entries):
        raise ValueError("must list each key once")
    return entries
