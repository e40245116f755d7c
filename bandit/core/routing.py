"""Which arm decides a unit: a keyed hash on the allocation in force.

A unit's hash places it in one of 2^64 buckets. Versions of an allocation partition the buckets;
a reweight moves no more of them than the weights themselves moved (half the sum of the absolute
differences, the least any router can move), because arms that shrink give up whole stretches and
arms that grow take exactly those.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from uuid import UUID

from bandit.core.model import WHOLE_PPM, Allocation, PolicyName, Ppm, UnitId, whole

BUCKET_BITS = 64


@lru_cache(maxsize=256)
def _prefix(salt: bytes, use: bytes, experiment: str, size: int) -> hashlib.blake2b:
    # The length prefix keeps ("ab", "c") and ("a", "bc") apart.
    name = experiment.encode()
    message = len(name).to_bytes(2, "big") + name
    return hashlib.blake2b(message, digest_size=size, key=salt, person=use)


def _keyed_hash(salt: bytes, *, use: bytes, experiment: str, unit: str, size: int) -> bytes:
    # What all units of an experiment share is hashed once: setting up costs as much as hashing.
    hashed = _prefix(salt, use, experiment, size).copy()
    hashed.update(unit.encode())
    return hashed.digest()


def bucket_of(salt: bytes, *, experiment: str, unit: UnitId) -> int:
    """Return the unit's bucket in 0 .. 2^64 - 1.

    `salt` is a secret of the experiment: clients choose unit ids, and must not choose arms.

    >>> bucket_of(b"s" * 32, experiment="btc", unit=UnitId("bar-1"))
    3675469600061580247
    """
    digest = _keyed_hash(salt, use=b"route", experiment=experiment, unit=unit, size=8)
    return int.from_bytes(digest, "big")


def assignment_id(salt: bytes, *, experiment: str, unit: UnitId) -> UUID:
    """Return the one id this unit's assignment can have, so that a retry meets itself.

    >>> assignment_id(b"s" * 32, experiment="btc", unit=UnitId("bar-1")).version
    8
    """
    digest = bytearray(
        _keyed_hash(salt, use=b"assignment", experiment=experiment, unit=unit, size=16)
    )
    digest[6] = 0x80 | (digest[6] & 0x0F)  # RFC 9562 version 8: a custom, hash-made UUID
    digest[8] = 0x80 | (digest[8] & 0x3F)
    return UUID(bytes=bytes(digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Parts `start` to `stop` (exclusive, in ppm) that route to `policy`."""

    start: int
    stop: int
    policy: PolicyName


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Every part of a million, each belonging to exactly one policy, in ascending stretches."""

    stretches: tuple[Stretch, ...]
    first_buckets: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay the first buckets of the stretches side by side, to be searched for every unit."""
        # A bucket lies in part floor(bucket * 10^6 / 2^64): the least of a part rounds up.
        firsts = (-(-(stretch.start << BUCKET_BITS) // WHOLE_PPM) for stretch in self.stretches)
        object.__setattr__(self, "first_buckets", tuple(firsts))

    def policy_of(self, bucket: int) -> PolicyName:
        """Return the policy that decides units in `bucket`."""
        return self.stretches[bisect_right(self.first_buckets, bucket) - 1].policy


def partition(ppm: Mapping[PolicyName, Ppm]) -> Partition:
    """Lay the policies out side by side, in the order of `ppm`.

    >>> p = partition({PolicyName("new"): Ppm(100_000), PolicyName("old"): Ppm(900_000)})
    >>> [(s.start, s.stop, s.policy) for s in p.stretches]
    [(0, 100000, 'new'), (100000, 1000000, 'old')]
    """
    whole(ppm)
    stretches, start = [], 0
    for policy, part in ppm.items():
        stretches.append(Stretch(start=start, stop=start + part, policy=policy))
        start += part
    return _merged(stretches)


def repartition(current: Partition, ppm: Mapping[PolicyName, Ppm]) -> Partition:
    """Move `current` to the weights `ppm`, moving no more parts than the weights moved.

    Arms that shrink give up their highest parts; arms that grow take the freed parts in ascending
    order, the growing arms taken in the order of `ppm`.

    >>> a, b = PolicyName("a"), PolicyName("b")
    >>> p = repartition(partition({a: Ppm(500_000), b: Ppm(500_000)}),
    ...                 {a: Ppm(600_000), b: Ppm(400_000)})
    >>> [(s.start, s.stop, s.policy) for s in p.stretches]
    [(0, 500000, 'a'), (500000, 900000, 'b'), (900000, 1000000, 'a')]
    """
    whole(ppm)
    surplus = _held(current)
    for policy, part in ppm.items():
        surplus[policy] = surplus.get(policy, 0) - part
    kept: list[Stretch] = []
    freed: list[Stretch] = []
    for stretch in reversed(current.stretches):
        give = min(stretch.stop - stretch.start, max(0, surplus[stretch.policy]))
        surplus[stretch.policy] -= give
        border = stretch.stop - give
        if give:
            freed.append(Stretch(start=border, stop=stretch.stop, policy=stretch.policy))
        if border > stretch.start:
            kept.append(Stretch(start=stretch.start, stop=border, policy=stretch.policy))
    growing = [(policy, -surplus[policy]) for policy in ppm if surplus[policy] < 0]
    return _merged(kept + _dealt(freed[::-1], growing))


def partition_of_history(versions: Iterable[Mapping[PolicyName, Ppm]]) -> Partition:
    """Return the partition in force after `versions`, oldest first: a pure fold."""
    first, *rest = versions
    return repartitioned(partition(first), rest)


def repartitioned(current: Partition, versions: Iterable[Mapping[PolicyName, Ppm]]) -> Partition:
    """Return the partition in force after more `versions`, oldest first."""
    return reduce(repartition, versions, current)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The policy that decides a unit, and the probability with which a new unit gets it."""

    policy: PolicyName
    propensity: float


def router(
    salt: bytes, *, experiment: str, allocation: Allocation, partition: Partition
) -> Callable[[Iterable[UnitId]], list[Route]]:
    """Return what routes units of an experiment: `policy_of` their `bucket_of`, in one look-up.

    >>> old, new = PolicyName("old"), PolicyName("new")
    >>> half = {old: Ppm(500_000), new: Ppm(500_000)}
    >>> routes = router(b"s" * 32, experiment="btc", partition=partition(half),
    ...                 allocation=Allocation(version=1, champion=old, ppm=half))
    >>> routes([UnitId("bar-1")])
    [Route(policy='old', propensity=0.5)]
    """
    # What all units share is laid out once: with every unit it would cost as much as its hash.
    # Hashes stay bytes, which compare like the numbers they are: the most significant come first.
    copy = _prefix(salt, b"route", experiment, BUCKET_BITS // 8).copy
    routes = [
        Route(policy=stretch.policy, propensity=allocation.propensity(stretch.policy))
        for stretch in partition.stretches
    ]
    borders = [first.to_bytes(BUCKET_BITS // 8, "big") for first in partition.first_buckets[1:]]

    def routes_of(units: Iterable[UnitId]) -> list[Route]:
        found = []
        for unit in units:
            hashed = copy()
            hashed.update(unit.encode())
            found.append(routes[bisect_right(borders, hashed.digest())])
        return found

    return routes_of


def _held(current: Partition) -> dict[PolicyName, int]:
    held: dict[PolicyName, int] = {}
    for stretch in current.stretches:
        held[stretch.policy] = held.get(stretch.policy, 0) + stretch.stop - stretch.start
    return held


def _dealt(freed: list[Stretch], growing: list[tuple[PolicyName, int]]) -> list[Stretch]:
    dealt = []
    wanted = iter(growing)
    policy, want = next(wanted, (PolicyName(""), 0))
    for stretch in freed:
        start = stretch.start
        while start < stretch.stop:
            while want == 0:
                policy, want = next(wanted)
            take = min(want, stretch.stop - start)
            dealt.append(Stretch(start=start, stop=start + take, policy=policy))
            start, want = start + take, want - take
    return dealt


def _merged(stretches: Iterable[Stretch]) -> Partition:
    merged: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda s: s.start):
        if stretch.start == stretch.stop:
            continue
        if merged and merged[-1].policy == stretch.policy and merged[-1].stop == stretch.start:
            last = merged.pop()
            stretch = Stretch(start=last.start, stop=stretch.stop, policy=stretch.policy)
        merged.append(stretch)
    return Partition(stretches=tuple(merged))
