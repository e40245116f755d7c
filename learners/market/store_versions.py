"""Loads of several series at once, each of which can be taken back by its date."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from bandit.core.errors import UnknownName
from learners.durable_files import write_durably
from learners.market.candle_store import CandleStore, candles_of
from learners.market.candles import Candles
from learners.market.feature_store import FeaturePart, parts_of
from learners.market.store_switch import (
    Documents,
    Version,
    document_of,
    forget_version,
    keep_version,
    switch,
    version_digest,
    versions,
)
from learners.market.stored_series import (
    DamagedSeries,
    Document,
    SeriesName,
    StoredSeries,
    feature_file,
    series_of,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Offer:
    """The bars of a series that a load brings, and the features of those that have none yet."""

    name: SeriesName
    candles: Candles | None
    features: FeaturePart | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a load did: `new` bars by series, and the store's digest before and after."""

    new: Mapping[str, int]
    before: str
    after: str


def load(store: CandleStore, date: date, offers: Sequence[Offer], *, now: datetime) -> Loaded:
    """Bring the bars of several series into the store in one step, as the version of a date.

    The same again changes nothing. Raises as `CandleStore.append`; nothing is loaded then.
    """
    root = store.root
    with store.writing([offer.name for offer in offers]):
        digest = version_digest(root)
        before: dict[str, Mapping[str, object] | None] = {}
        after: dict[str, Mapping[str, object] | None] = {}
        for offer in offers:
            folder = offer.name.folder.as_posix()
            prepared = _prepared(store, date, offer, now=now)
            known = document_of(root, folder)
            if prepared is not None and prepared.to_json() != known:
                before[folder], after[folder] = known, prepared.to_json()
        if after:
            changed = Version(day=date, digest=digest, before=before, after=after)
            keep_version(root, _merged(root, changed))
            switch(root, after)
        return _loaded(root, date, [offer.name for offer in offers])


def _loaded(root: Path, date: date, names: Sequence[SeriesName]) -> Loaded:
    """Return what the load of a date did, also where that was before a kill."""
    after = version_digest(root)
    kept = next((version for version in versions(root) if version.day == date), None)
    before, told = (after, {}) if kept is None else (kept.digest, dict(kept.after))
    new = {}
    for name in names:
        folder = name.folder.as_posix()
        had = None if kept is None else kept.before.get(folder)
        has = told.get(folder)
        new[str(name)] = _bars(has) - _bars(had)
    return Loaded(new=new, before=before, after=after)


def _bars(document: Document | None) -> int:
    return 0 if document is None else int(document["bars"])


def undone_by(root: Path, date: date) -> list[Version]:
    """Return the loads that going back to before a date undoes, the oldest first.

    Raises `UnknownName` where the load of that date is not kept.
    """
    kept = versions(root)
    known = [version.day.isoformat() for version in kept]
    if date.isoformat() not in known:
        raise UnknownName(kind="load", name=date.isoformat(), known=known)
    return [version for version in kept if version.day >= date]


def target_of(undone: Sequence[Version]) -> Documents:
    """Return what each series is to be again, before the first of these loads.

    >>> day = date(2026, 3, 1)
    >>> first = Version(day=day, digest="", before={"a": None}, after={"a": {"bars": 1}})
    >>> second = Version(day=day, digest="", before={"a": {"bars": 1}, "b": None}, after={})
    >>> target_of([first, second])
    {'a': None, 'b': None}
    """
    target: dict[str, Mapping[str, object] | None] = {}
    for version in reversed(undone):
        target.update(version.before)
    return target


def require_whole(root: Path, documents: Documents) -> None:
    """Read every file that documents name; raises `DamagedSeries` for one that is not sound."""
    for folder, document in documents.items():
        if document is None:
            continue
        stored = series_of(document, where=root / folder)
        try:
            candles_of(root, stored)
            for _ in parts_of(root, stored):
                pass
        except FileNotFoundError as error:
            raise DamagedSeries(f"{error.filename} is missing") from error


def restore(store: CandleStore, undone: Sequence[Version]) -> None:
    """Make the store what it was before these loads; the same again changes nothing.

    Raises `LockHeldElsewhere`, `DamagedSeries` where a file that is needed is not sound, and
    `OSError`; nothing is changed then.
    """
    target = target_of(undone)
    told = [
        series_of(document, where=store.root / folder)
        for version in undone
        for folder, document in version.after.items()
        if document is not None
    ]
    with store.writing(list({stored.name for stored in told})):
        require_whole(store.root, target)
        switch(store.root, target)


def forget(root: Path, undone: Sequence[Version]) -> None:
    """Take loads that were undone from those that can be, the oldest last: it tells of the rest."""
    for version in reversed(undone):
        forget_version(root, version.day)


def _prepared(
    store: CandleStore, date: date, offer: Offer, *, now: datetime
) -> StoredSeries | None:
    prepared = store.stored(offer.name)
    if offer.candles is not None:
        prepared, _ = store.prepare(offer.name, offer.candles, now=now)
    part = offer.features
    if prepared is None or part is None:
        return prepared
    sha256 = hashlib.sha256(part.content).hexdigest()
    name = feature_file(part.spec_digest, date.isoformat(), sha256)
    write_durably(store.root / offer.name.folder / name, part.content)
    dates = prepared.features.get(part.spec_digest, {})
    dates = {**dates, date.isoformat(): part.told(sha256)}
    return replace(prepared, features={**prepared.features, part.spec_digest: dates})


def _merged(root: Path, version: Version) -> Version:
    """Add what an earlier part of the same load changed, where it did."""
    earlier = next((kept for kept in versions(root) if kept.day == version.day), None)
    if earlier is None:
        return version
    done = {f for f, document in earlier.after.items() if document_of(root, f) == document}
    before = {f: document for f, document in earlier.before.items() if f in done}
    after = {f: document for f, document in earlier.after.items() if f in done}
    return Version(
        day=version.day,
        digest=earlier.digest if done else version.digest,
        before={**version.before, **before},
        after={**after, **version.after},
    )
