"""Hostile manifests, and directories that were changed after they were sealed: all refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_policy import (
    FILES,
    GOLDEN,
    MANIFEST,
    SPEC,
    WEIGHTS,
    files_of,
    manifest_for,
    planted,
    refusal,
    stored,
)

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha
from learners.artifact import read


def manifest_case(
    change: Callable[[dict[str, Any]], object],
) -> Callable[[dict[str, bytes]], bytes]:
    def made(files: dict[str, bytes]) -> bytes:
        body = manifest_for(files)
        change(body)
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    return made


def entry(name: str, **changes: object) -> Callable[[dict[str, bytes]], bytes]:
    return manifest_case(lambda body: body["files"][name].update(changes))


OF_MANIFESTS: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "empty": (lambda _: b"", "must be JSON"),
    "a_list": (lambda _: b"[]", "must hold files and format"),
    "too_large": (lambda _: b" " * 5000, "must have at most 4096 bytes"),
    "key_repeated": (lambda _: b'{"files":{},"files":{}}', "must not repeat a key"),
    "nested": (lambda _: b"[" * 4000, "must be JSON"),
    "extra_key": (manifest_case(lambda b: b.update(run="x")), "must hold files and format"),
    "format_of_the_future": (manifest_case(lambda b: b.update(format=2)), "format must be 1"),
    "format_true": (manifest_case(lambda b: b.update(format=True)), "format must be 1"),
    "format_text": (manifest_case(lambda b: b.update(format="1")), "must hold files and format"),
    "file_outside": (
        manifest_case(lambda b: b["files"].update({"../../etc/passwd": b["files"].pop(SPEC)})),
        "files must be",
    ),
    "file_absolute": (
        manifest_case(lambda b: b["files"].update({"/etc/passwd": b["files"].pop(SPEC)})),
        "files must be",
    ),
    "file_left_out": (manifest_case(lambda b: b["files"].pop(GOLDEN)), "files must be"),
    "file_named_twice": (
        manifest_case(lambda b: b["files"].update({"SPEC.JSON": b["files"][SPEC]})),
        "files must be",
    ),
    "size_negative": (entry(SPEC, size=-1), "must have a size"),
    "size_true": (entry(SPEC, size=True), "must have a size"),
    "size_of_gigabytes": (entry(WEIGHTS, size=2**40), "must be at most"),
    "hash_of_another_case": (entry(SPEC, sha256="A" * 64), "must have a size"),
    "hash_short": (entry(SPEC, sha256="ab"), "must have a size"),
    "hash_missing": (manifest_case(lambda b: b["files"][SPEC].pop("sha256")), "must have a size"),
    "entry_with_more": (entry(SPEC, command="x"), "must have a size"),
    "entry_text": (manifest_case(lambda b: b["files"].update({SPEC: "x"})), "must have a size"),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_MANIFESTS)
def test_a_resealed_manifest_is_refused(tmp_path: Path, case: str) -> None:
    made, rule = OF_MANIFESTS[case]
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    found = refusal(tmp_path / "bad", planted(tmp_path / "bad", files, made(files)))
    assert found.file == MANIFEST
    assert rule in found.rule


# Directories. Their names are right; what lies in them was changed afterwards.


def _linked(folder: Path) -> None:
    target = folder.parent / "elsewhere"
    (folder / SPEC).rename(target)
    (folder / SPEC).symlink_to(target)


def _whole_folder_linked(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / SPEC).unlink()
        make(folder / SPEC)

    return change


def _file_for_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.write_bytes(b"")


def _sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2**40)


def _swap_files(folder: Path) -> None:
    (folder / SPEC).rename(folder / "third")
    (folder / GOLDEN).rename(folder / SPEC)
    (folder / "third").rename(folder / GOLDEN)


REGULAR, FOLDER = "must be a regular file", "must be a directory and no link"
OF_FOLDERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "file_linked": (_linked, SPEC, REGULAR),
    "file_linked_to_a_device": (replaced(lambda p: p.symlink_to("/dev/zero")), SPEC, REGULAR),
    "link_that_leads_nowhere": (replaced(lambda p: p.symlink_to("nowhere")), SPEC, REGULAR),
    "pipe": (replaced(os.mkfifo), SPEC, REGULAR),
    "folder_in_the_place_of_a_file": (replaced(Path.mkdir), SPEC, REGULAR),
    "folder_linked": (_whole_folder_linked, "directory", FOLDER),
    "folder_removed": (lambda f: f.rename(f.parent / "x"), "directory", FOLDER),
    "file_in_the_place_of_the_folder": (_file_for_folder, "directory", FOLDER),
    "extra_folder": (lambda f: (f / "__pycache__").mkdir(), "directory", "and nothing else"),
    "grown": (lambda f: _sparse(f / WEIGHTS), WEIGHTS, "must have at most"),
    "files_swapped": (_swap_files, SPEC, "must have"),
    "emptied": (lambda f: (f / GOLDEN).write_bytes(b""), GOLDEN, "must have"),
}


@pytest.mark.parametrize("case", OF_FOLDERS)
def test_a_changed_directory_is_refused(tmp_path: Path, case: str) -> None:
    change, file, rule = OF_FOLDERS[case]
    sha = stored(tmp_path).sha
    change(tmp_path / sha)
    found = refusal(tmp_path, sha)
    assert found.file == file
    assert rule in found.rule


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    sha = stored(tmp_path).sha
    (tmp_path / sha / name).unlink()
    found = refusal(tmp_path, sha)
    assert (found.file, found.rule) == (name, "must be there")


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_file_of_the_same_size_and_another_hash_is_named(tmp_path: Path, name: str) -> None:
    sha = stored(tmp_path).sha
    path = tmp_path / sha / name
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    found = refusal(tmp_path, sha)
    assert found.file == name
    assert "must have the SHA-256" in found.rule


@pytest.mark.parametrize("name", ["model.pkl", ".spec.json", "__init__.py", "policy.onnx.data"])
def test_an_extra_file_is_named(tmp_path: Path, name: str) -> None:
    sha = stored(tmp_path).sha
    (tmp_path / sha / name).write_bytes(b"")
    found = refusal(tmp_path, sha)
    assert (found.file, found.found) == ("directory", name)


@pytest.mark.parametrize(
    "name",
    ["Spec.json", "\uff53pec.json", "spec.json ", "spec.json\n", os.fsdecode(b"spec\xff.json")],
)
def test_a_file_of_almost_the_right_name_is_refused(tmp_path: Path, name: str) -> None:
    sha = stored(tmp_path).sha
    (tmp_path / sha / SPEC).rename(tmp_path / sha / name)
    found = refusal(tmp_path, sha)
    assert found.file == "directory"
    assert found.found == ascii(name)[1:-1]


def test_the_files_of_one_policy_under_the_name_of_another_are_refused(tmp_path: Path) -> None:
    old, new = stored(tmp_path).sha, stored(tmp_path, seed=5).sha
    (tmp_path / old).rename(tmp_path / "x")
    (tmp_path / new).rename(tmp_path / old)
    assert refusal(tmp_path, old).file == MANIFEST


@pytest.mark.parametrize(
    "sha",
    ["", "..", "../" + "a" * 61, "a" * 63, "A" * 64, "a" * 63 + "\n", "/etc/passwd", "\uff41" * 64],
)
def test_a_hash_that_is_none_never_becomes_a_path(tmp_path: Path, sha: str) -> None:
    with pytest.raises(InvalidInput, match="must be 64 lower-case hexadecimal digits"):
        read(tmp_path, PolicySha(sha))


def test_what_is_found_is_named_in_plain_ascii(tmp_path: Path) -> None:
    sha = stored(tmp_path).sha
    (tmp_path / sha / "\x1b[2J\u202emodel").write_bytes(b"")
    message = str(refusal(tmp_path, sha))
    assert message.isascii()
    assert message.isprintable()
