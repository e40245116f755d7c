"""Where a unit goes: the same place for ever, in every process, as often as the weights say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chisquare

from bandit.core.errors import InvalidAllocation
from bandit.core.model import WHOLE_PPM, PolicyName, Ppm, UnitId
from bandit.core.routing import (
    BUCKET_BITS,
    Partition,
    assignment_id,
    bucket_of,
    partition,
    partition_of_history,
    repartition,
)

ROOT = Path(__file__).resolve().parents[2]
A, B, C, D = (PolicyName(name) for name in "abcd")
SALT = bytes(range(32))


def weights(**parts: int) -> dict[PolicyName, Ppm]:
    return {PolicyName(name): Ppm(part) for name, part in parts.items()}


# Three reweights, an arm that leaves and one that enters: the last one's stretches are scattered.
HISTORY = [
    weights(a=300_000, b=100_000, c=600_000),
    weights(a=200_000, b=150_000, c=650_000),
    weights(a=250_000, b=0, c=750_000),
    weights(a=250_000, c=630_000, d=100_000, b=20_000),
]
WANTED = {A: 250_000, B: 20_000, C: 630_000, D: 100_000}


def shares(made: Partition) -> dict[PolicyName, int]:
    held: dict[PolicyName, int] = {}
    for stretch in made.stretches:
        held[stretch.policy] = held.get(stretch.policy, 0) + stretch.stop - stretch.start
    return held


def test_buckets_at_the_borders_belong_to_the_outermost_stretches() -> None:
    made = partition(weights(a=1, b=999_998, c=1))
    last = 2**BUCKET_BITS - 1
    assert made.policy_of(0) == A
    assert made.policy_of(last) == C
    # The first bucket of part 1 is the least b with b * 10^6 >= 2^64.
    border = -(-(2**BUCKET_BITS) // WHOLE_PPM)
    assert made.policy_of(border - 1) == A
    assert made.policy_of(border) == B


def test_policy_without_weight_gets_no_stretch() -> None:
    assert shares(partition(weights(a=0, b=1_000_000))) == {B: 1_000_000}


def test_history_ends_at_the_newest_weights() -> None:
    assert shares(partition_of_history(HISTORY)) == WANTED


def test_retired_policy_gives_up_everything() -> None:
    after = repartition(partition(weights(a=400_000, b=600_000)), weights(b=1_000_000))
    assert shares(after) == {B: 1_000_000}
    assert len(after.stretches) == 1


def test_unchanged_weights_move_nothing() -> None:
    made = partition_of_history(HISTORY)
    assert repartition(made, HISTORY[-1]) == made


@pytest.mark.parametrize("change", [{"a": 999_999}, {"a": 1_000_001}, {"a": -1, "b": 1_000_001}])
def test_weights_that_are_no_whole_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InvalidAllocation):
        partition(weights(**change))
    with pytest.raises(InvalidAllocation):
        repartition(partition(weights(a=1_000_000)), weights(**change))


def test_experiment_and_unit_are_kept_apart() -> None:
    assert bucket_of(SALT, experiment="ab", unit=UnitId("c")) != bucket_of(
        SALT, experiment="a", unit=UnitId("bc")
    )
    assert assignment_id(SALT, experiment="ab", unit=UnitId("c")) != assignment_id(
        SALT, experiment="a", unit=UnitId("bc")
    )


def test_salt_decides() -> None:
    assert bucket_of(SALT, experiment="btc", unit=UnitId("u")) != bucket_of(
        bytes(32), experiment="btc", unit=UnitId("u")
    )


def test_assignment_ids_are_custom_uuids_that_tell_nothing_of_the_bucket() -> None:
    made = assignment_id(SALT, experiment="btc", unit=UnitId("u"))
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    bucket = bucket_of(SALT, experiment="btc", unit=UnitId("u"))
    assert made.bytes[:4] != bucket.to_bytes(8, "big")[:4]


# Where the first thousand bars of an experiment with HISTORY go, and under which ids. A change of
# this digest would move the units of every open experiment.
GOLDEN = "2f8c54fd018767faa4356587bc2f79b0d1b6777dfbde6f93c7f85574737899c0"
ROUTES = f"""
import hashlib
from bandit.core.routing import assignment_id, bucket_of, partition_of_history

made = partition_of_history({HISTORY})
digest = hashlib.sha256()
for unit in (f"bar-{{i}}" for i in range(1000)):
    digest.update(made.policy_of(bucket_of({SALT}, experiment="btc", unit=unit)).encode())
    digest.update(assignment_id({SALT}, experiment="btc", unit=unit).bytes)
print(digest.hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_every_process_routes_alike_for_ever(hash_seed: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", ROUTES],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == GOLDEN


@pytest.mark.no_cover
def test_ten_years_of_nights_leave_few_stretches() -> None:
    # Sixteen challengers that step up or down nearly every night. A night adds at most one border
    # for each arm that moved, and merging takes as many away again: some 230 stretches are left,
    # far under the bound of twice the square of the arms.
    rng = np.random.default_rng(20261120)
    parts = {PolicyName(f"arm-{i:02}"): 37_500 for i in range(16)}
    champion = PolicyName("champion")
    made = partition({**{p: Ppm(v) for p, v in parts.items()}, champion: Ppm(400_000)})
    for _ in range(3650):
        for policy, draw in zip(parts, rng.random(16), strict=True):
            if draw < 0.4:
                parts[policy] = max(20_000, int(parts[policy] / 1.5))
            elif draw < 0.8:
                step = min(int(parts[policy] * 1.5), 250_000) - parts[policy]
                parts[policy] += min(step, 600_000 - sum(parts.values()))
        ppm = {policy: Ppm(part) for policy, part in parts.items()}
        made = repartition(made, {**ppm, champion: Ppm(WHOLE_PPM - sum(parts.values()))})
        assert len(made.stretches) <= 2 * 17**2


SALTS = 20
UNITS = 1_000_000
CELLS = 1024
# Forty tests on fixed salts, so the verdict never changes from run to run. A router that is fair
# fails one of them with probability 1e-4 over the choice of salts (Bonferroni).
ALPHA = 1e-4 / (2 * SALTS)


BUCKETS = """
import sys
import numpy as np
from bandit.core.routing import bucket_of

salt, count = bytes.fromhex(sys.argv[1]), int(sys.argv[2])
found = (bucket_of(salt, experiment="btc", unit=f"bar-{i}") for i in range(count))
sys.stdout.buffer.write(np.fromiter(found, dtype=np.uint64, count=count).tobytes())
"""


def buckets_of(salt: bytes) -> npt.NDArray[np.uint64]:
    """The router's buckets of a million bars; in a process that no coverage slows down."""
    command = [sys.executable, "-c", BUCKETS, salt.hex(), str(UNITS)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    found = np.frombuffer(answer.stdout, dtype=np.uint64)
    for i in range(0, UNITS, UNITS // 7):
        assert found[i] == bucket_of(salt, experiment="btc", unit=UnitId(f"bar-{i}"))
    return found


def parts_of(buckets: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The part of each bucket: floor(bucket * 10^6 / 2^64), in 64-bit steps."""
    high, low = buckets >> np.uint64(32), buckets & np.uint64(0xFFFFFFFF)
    million = np.uint64(WHOLE_PPM)
    return (high * million + (low * million >> np.uint64(32))) >> np.uint64(32)


@pytest.mark.no_cover
@pytest.mark.parametrize("index", range(SALTS))
def test_a_million_units_go_where_the_weights_say(index: int) -> None:
    buckets = buckets_of(np.random.default_rng(index).bytes(32))
    cells = np.bincount((buckets >> np.uint64(BUCKET_BITS - 10)).astype(np.int64), minlength=CELLS)
    assert chisquare(cells).pvalue > ALPHA

    made = partition_of_history(HISTORY)
    starts = np.array([stretch.start for stretch in made.stretches], dtype=np.uint64)
    owners = np.array([list(WANTED).index(stretch.policy) for stretch in made.stretches])
    routes = owners[np.searchsorted(starts, parts_of(buckets), side="right") - 1]
    for i in range(0, UNITS, 5003):  # the fast lane here is the router's own
        assert made.policy_of(int(buckets[i])) == list(WANTED)[routes[i]]
    counts = np.bincount(routes, minlength=len(WANTED))
    assert chisquare(counts, np.array(list(WANTED.values()))).pvalue > ALPHA
