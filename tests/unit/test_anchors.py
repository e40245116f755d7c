"""The file that holds the anchors: appended to, never rewritten, whole after any crash."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bandit.core.audit_chain import Anchor
from liveops.anchors import AnchorFile

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def anchor(sequence: int) -> Anchor:
    return Anchor(sequence=sequence, chain_hash=sequence.to_bytes(32, "big"), sealed_at=NOON)


@pytest.fixture
def file(tmp_path: Path) -> AnchorFile:
    return AnchorFile(tmp_path / "other disk" / "anchors.jsonl")


def test_what_was_appended_is_read_in_order(file: AnchorFile) -> None:
    assert list(file.read()) == []
    for sequence in (1, 4, 9):
        file.append(anchor(sequence))
    assert list(file.read()) == [anchor(1), anchor(4), anchor(9)]
    assert file.path.read_text().splitlines()[0] == (
        f'{{"sequence": 1, "chain_hash": "{"0" * 63}1", "sealed_at": "2026-03-01T12:00:00+00:00"}}'
    )


def test_only_its_owner_may_read_it(file: AnchorFile) -> None:
    file.append(anchor(1))
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_the_last_anchor_is_not_written_twice(file: AnchorFile) -> None:
    for sequence in (1, 1, 2, 1):
        file.append(anchor(sequence))
    assert list(file.read()) == [anchor(1), anchor(2), anchor(1)]


@pytest.mark.parametrize("kept", [1, 40, 141])
def test_a_line_that_a_crash_cut_off_is_ended_and_reported(file: AnchorFile, kept: int) -> None:
    file.append(anchor(1))
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + whole[:-1][:kept])
    before = file.path.read_bytes()
    # A line cut off after its last bracket is all there; every shorter one is torn.
    torn = anchor(1) if kept >= len(whole) - 1 else None
    assert list(file.read()) == [anchor(1), torn]
    file.append(anchor(2))
    assert list(file.read()) == [anchor(1), torn, anchor(2)]
    assert file.path.read_bytes().startswith(before)


def test_bytes_that_are_no_text_are_torn_lines(file: AnchorFile) -> None:
    file.append(anchor(1))
    with file.path.open("ab") as raw:
        raw.write(b"\xff\x00\n\n")
    file.append(anchor(2))
    assert list(file.read()) == [anchor(1), None, anchor(2)]


def test_what_is_appended_while_it_is_read_is_left_out(file: AnchorFile) -> None:
    file.append(anchor(1))
    reading = file.read()
    file.append(anchor(2))
    assert list(reading) == [anchor(1)]


def test_several_writers_share_one_file(file: AnchorFile) -> None:
    barrier = threading.Barrier(4)

    def write(first: int) -> None:
        own = AnchorFile(file.path)
        barrier.wait(timeout=30)
        for sequence in range(first, 400, 4):
            own.append(anchor(sequence))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, (1, 2, 3, 4)))
    lines = list(file.read())
    assert sorted(found.sequence for found in lines if found is not None) == list(range(1, 400))
    assert None not in lines


def test_a_place_that_cannot_be_written_is_an_error_and_not_silence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        AnchorFile(tmp_path / "taken" / "anchors.jsonl").append(anchor(1))
