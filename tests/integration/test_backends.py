"""Trials in processes of this machine: what is heard of them, and that none outlives its end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_candles import random_walk
from sweeps import a_sweep
from waiting import until

from config.settings import Settings
from learners.backends import ClusterUnavailable, LocalBackend, RayBackend
from learners.tuning import FoldDone, Said, TrialBegun, TrialFailed, TrialLost, TrialMade
from liveops.clock import monotonic

pytest.importorskip("pytorch_tabnet", reason="the learners are not installed")

SERIES = [random_walk(1_560, seed=5)]
ASKED = a_sweep(Settings(), SERIES, trials=1)
PLAN = ASKED.planned(ASKED.fixed)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    made = LocalBackend(SERIES, folder_of=lambda n: tmp_path / str(n), clock=monotonic)
    yield made
    made.close()


def heard(backend: LocalBackend, number: int) -> Said:
    words: list[tuple[int, Said]] = []
    until(lambda: bool(words), lambda: words.extend(backend.heard(0.1)))
    assert [n for n, _ in words] == [number]
    return words[0][1]


def group(leader: int) -> list[int]:
    """Return the processes of a group."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            of = int((process / "stat").read_text().rpartition(")")[2].split()[2])
        except (OSError, ValueError):
            continue
        if of == leader:
            found.append(int(process.name))
    return found


def test_a_trial_is_ended_with_all_that_it_started(backend: LocalBackend) -> None:
    backend.begin(7, PLAN)
    assert isinstance(heard(backend, 7), TrialBegun)
    leader = backend._workers[7].process.pid
    assert leader is not None
    until(lambda: len(group(leader)) > 1)  # its training has a process of its own
    backend.end(7)
    until(lambda: not group(leader))
    assert backend.heard(0.0) == []


def test_a_killed_process_is_a_lost_trial_and_begun_again_it_is_made(
    backend: LocalBackend, tmp_path: Path
) -> None:
    backend.begin(0, PLAN)
    assert isinstance(heard(backend, 0), TrialBegun)
    first = heard(backend, 0)
    assert isinstance(first, FoldDone)
    leader = backend._workers[0].process.pid
    assert leader is not None
    os.kill(leader, signal.SIGKILL)
    while not isinstance(last := heard(backend, 0), TrialLost):
        assert isinstance(last, FoldDone)
    assert last.reason == "its process ended with -9"
    backend.begin(0, PLAN)
    assert isinstance(heard(backend, 0), TrialBegun)
    assert heard(backend, 0) == first, "the same, from the checkpoints that were left"
    while isinstance(last := heard(backend, 0), FoldDone):
        pass
    assert isinstance(last, TrialMade)
    assert last.sha in last.files
    assert len(last.files) == 2, "the policy and its encoder"


def test_what_cannot_be_made_is_told_and_not_tried_again(tmp_path: Path) -> None:
    short = [random_walk(900, seed=5)]
    made = LocalBackend(short, folder_of=lambda n: tmp_path / str(n), clock=monotonic)
    made.begin(0, PLAN)
    assert isinstance(heard(made, 0), TrialBegun)
    failed = heard(made, 0)
    assert isinstance(failed, TrialFailed)
    assert "for one fold" in failed.reason
    made.close()


def test_where_no_cluster_answers_it_is_said_at_once() -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterUnavailable, match=f"no cluster of Ray at {address}"):
            RayBackend(SERIES, address=address, clock=monotonic)
