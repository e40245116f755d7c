"""What the server runs for each file of its log: whole, on disk, and never over another."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from liveops.postgres_archive import archiving, first_needed


def archive(folder: Path, source: Path, name: str = "0001") -> int:
    """Run the command as the server does: with its own replacements, in its own directory."""
    command = archiving(folder, (os.geteuid(), os.getegid()))["archive_command"]
    told = command.replace("%p", source.name).replace("%f", name).replace("%%", "%")
    return subprocess.run(["sh", "-c", told], cwd=source.parent, check=False).returncode


@pytest.mark.parametrize("name", ["wal", "100% of it", 'it\'s "quoted"', "a $HOME `b`"])
def test_a_file_is_copied_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"log")
    assert archive(tmp_path / name, source) == 0
    assert (tmp_path / name / "0001").read_bytes() == b"log"
    assert [path.name for path in (tmp_path / name).iterdir()] == ["0001"]


def test_the_same_again_is_done_and_another_is_never_put_over_it(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "wal"
    source.write_bytes(b"log")
    assert archive(folder, source) == 0
    assert archive(folder, source) == 0
    source.write_bytes(b"lie")
    assert archive(folder, source) != 0
    assert (folder / "0001").read_bytes() == b"log"


def test_what_a_cut_off_copy_left_is_no_file_of_the_log(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "wal"
    source.write_bytes(b"log")
    folder.mkdir()
    (folder / "0001.part").write_bytes(b"lo")
    assert archive(folder, source) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"0001": b"log"}


def test_without_room_nothing_appears(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "wal"
    folder.mkdir()
    (folder / "0001.part").mkdir()  # as a full disk would, it lets nothing be written
    source.write_bytes(b"log")
    assert archive(folder, source) != 0
    assert not (folder / "0001").exists()


def test_a_copy_says_from_where_on_it_needs_the_log(tmp_path: Path) -> None:
    label = (
        "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: x\n"
    )
    (tmp_path / "backup_label").write_text(label)
    assert first_needed(tmp_path) == "000000010000000000000002"
