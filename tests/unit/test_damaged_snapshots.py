"""A thousand damaged snapshots, and not one that is loaded: seeds 0 to 999."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from harmful_files import Harm
from made_up_policy import deciding

from bandit.core.errors import BanditError, InvalidInput
from learners.sealed_files import ArtifactRefused
from liveops.snapshot_restoring import put_back, restore
from snapshots import copies
from snapshots.blob_store import BlobMissing, StoreUnavailable
from snapshots.local_store import LocalStore
from snapshots.manifest import (
    ENTRY_SIZE_MAX,
    Entry,
    EntryKind,
    Manifest,
    SnapshotDamaged,
    dates_of,
    manifest_key,
    object_key,
    read_manifest,
)

DAY, CASES = date(2026, 3, 2), 1000
Rng = np.random.Generator
REFUSALS = (SnapshotDamaged, ArtifactRefused, BlobMissing, StoreUnavailable)


def entry_of(path: str, content: bytes, kind: EntryKind) -> Entry:
    sha256 = hashlib.sha256(content).hexdigest()
    return Entry(path=path, sha256=sha256, size=len(content), kind=kind)


class Scene:
    """A sound snapshot of two days in a directory, and how it was, file by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.store = LocalStore(folder / "store")
        self.marker = folder / "harmed"
        artifact = deciding(folder / "made")
        files = {
            f"artifacts/{artifact.sha}/{path.name}": path.read_bytes()
            for path in (folder / "made" / artifact.sha).iterdir()
        }
        self.manifests = {}
        for day in (date(2026, 3, 1), DAY):
            files["policies.json"] = f'[{{"day": "{day}"}}]\n'.encode()
            entries = tuple(entry_of(path, files[path], EntryKind.POLICY) for path in sorted(files))
            self.manifests[day] = Manifest(
                date=day,
                made_at=datetime(2026, 3, 3, tzinfo=UTC),
                ledger="ledger",
                schema="0035",
                version="0.1.0",
                entries=entries,
                left_out={},
            )
            bodies = {entry.sha256: files[entry.path] for entry in entries}
            copies.write(self.store, self.manifests[day], bodies, settled=None)
        self.manifest = self.manifests[DAY]
        keys = list(self.store.keys())
        self.sound = {key: self.store.get(key) for key in keys}

    def path(self, key: str) -> Path:
        return self.folder / "store" / key

    def object_path(self, rng: Rng) -> Path:
        """Where a file of the snapshot lies, any of them."""
        entry = self.manifest.entries[int(rng.integers(len(self.manifest.entries)))]
        return self.path(entry.key)

    def resealed(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Write another manifest with a digest that is right."""
        body = json.loads(self.sound[manifest_key(DAY)])
        del body["digest"]
        change(body)
        digest = hashlib.sha256(rfc8785.dumps(body)).hexdigest()
        self.path(manifest_key(DAY)).write_bytes(rfc8785.dumps(body | {"digest": digest}))

    def planted(self, content: bytes) -> dict[str, object]:
        """Store an object under its right name; return its hash and size."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.store.put(object_key(sha256), content)
        return {"sha256": sha256, "size": len(content)}

    def mended(self) -> None:
        for key in set(self.store.keys()) - set(self.sound):
            self.path(key).unlink()
        for key, content in self.sound.items():
            path = self.path(key)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(content)


def flipped(path: Path, rng: Rng) -> None:
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def flip_object(scene: Scene, rng: Rng) -> None:
    flipped(scene.object_path(rng), rng)


def flip_manifest(scene: Scene, rng: Rng) -> None:
    flipped(scene.path(manifest_key(DAY)), rng)


def truncate(scene: Scene, rng: Rng) -> None:
    paths = [scene.object_path(rng), scene.path(manifest_key(DAY))]
    path = paths[int(rng.integers(2))]
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def swap(scene: Scene, rng: Rng) -> None:
    one, two = rng.choice(len(scene.manifest.entries), 2, replace=False)
    paths = [scene.path(scene.manifest.entries[int(i)].key) for i in (one, two)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)


def old_manifest(scene: Scene, rng: Rng) -> None:
    scene.path(manifest_key(DAY)).write_bytes(scene.sound[manifest_key(date(2026, 3, 1))])


def pickled(scene: Scene, rng: Rng) -> None:
    content = pickle.dumps(Harm(scene.marker), int(rng.integers(6)))
    [scene.object_path(rng), scene.path(manifest_key(DAY))][int(rng.integers(2))].write_bytes(
        content
    )


def pickled_and_resealed(scene: Scene, rng: Rng) -> None:
    content = pickle.dumps(Harm(scene.marker), int(rng.integers(6)))
    files = [e.path for e in scene.manifest.entries if e.path.startswith("artifacts/")]
    chosen = files[int(rng.integers(len(files)))]
    found = scene.planted(content)
    scene.resealed(lambda body: [e.update(found) for e in body["entries"] if e["path"] == chosen])


BAD_PATHS = (
    "../../KILLED", "/etc/passwd", "artifacts/../../x.json", "policies.json/..", "model.pkl",
    "artifacts/" + "a" * 64 + "/model.pkl", "artifacts/" + "a" * 64 + "/../spec.json",
    "artifacts/" + "A" * 64 + "/spec.json", "cards\\x.json", "cards/x.json", ".bashrc", "",
    "artifacts/" + "a" * 64 + "/__init__.py", "policies.json\x00", "POLICIES.JSON",
)  # fmt: skip


def bad_path(scene: Scene, rng: Rng) -> None:
    path = BAD_PATHS[int(rng.integers(len(BAD_PATHS)))]

    def change(body: dict[str, Any]) -> None:
        body["entries"][0]["path"] = path
        body["entries"].sort(key=lambda entry: entry["path"])

    scene.resealed(change)


def linked(scene: Scene, rng: Rng) -> None:
    """The right content, but elsewhere: a link is never followed."""
    path = [scene.object_path(rng), scene.path(manifest_key(DAY))][int(rng.integers(2))]
    target = scene.folder / "elsewhere"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


def oversized(scene: Scene, rng: Rng) -> None:
    path = [scene.object_path(rng), scene.path(manifest_key(DAY))][int(rng.integers(2))]
    with path.open("r+b") as file:
        file.truncate(2**35)


def claims_to_be_large(scene: Scene, rng: Rng) -> None:
    size = int(rng.choice([ENTRY_SIZE_MAX + 1, 2**40, -1]))
    scene.resealed(lambda body: body["entries"][0].update(size=size))


def repeated_key(scene: Scene, rng: Rng) -> None:
    content = scene.sound[manifest_key(DAY)]
    key = [b'"entries":', b'"date":', b'"digest":', b'"format":'][int(rng.integers(4))]
    again = {b'"entries":': b"[]", b'"date":': b'"2026-03-02"', b'"format":': b"1"}
    put = key + again.get(key, b'"' + b"0" * 64 + b'"') + b","
    scene.path(manifest_key(DAY)).write_bytes(content.replace(key, put + key, 1))


def another_spelling(scene: Scene, rng: Rng) -> None:
    content = scene.sound[manifest_key(DAY)]
    ways = (content + b"\n", b" " + content, content.replace(b":1,", b":1.0,"), b"[" * 9000)
    ways += (content.replace(b'"ledger"', b'"l\\u0065dger"'), b"\xff" + content, b"null", b"")
    scene.path(manifest_key(DAY)).write_bytes(ways[int(rng.integers(len(ways)))])


def other_fields(scene: Scene, rng: Rng) -> None:
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda body: body.update(format=2),
        lambda body: body.update(command="x"),
        lambda body: body.pop("left_out"),
        lambda body: body["entries"].append(body["entries"][0]),
        lambda body: body["entries"].reverse(),
        lambda body: body["entries"][0].update(kind="program"),
        lambda body: body["entries"][0].update(size=True),
        lambda body: body["entries"][0].update(sha256="../../../etc/passwd"),
        lambda body: body["entries"][0].update(more=1),
        lambda body: body.update(made_at="2026-03-03T00:00:00"),
        lambda body: body.update(date="2026-02-31"),
        lambda body: body.update(entries={}),
        lambda body: body.update(ledger=1),
    ]
    scene.resealed(changes[int(rng.integers(len(changes)))])


def file_left_out(scene: Scene, rng: Rng) -> None:
    """A manifest that names all but one file of an artefact."""
    files = [i for i, e in enumerate(scene.manifest.entries) if e.path.startswith("artifacts/")]
    chosen = int(rng.choice(files))
    scene.resealed(lambda body: body["entries"].pop(chosen))


def gone(scene: Scene, rng: Rng) -> None:
    [scene.object_path(rng), scene.path(manifest_key(DAY))][int(rng.integers(2))].unlink()


def folder_in_its_place(scene: Scene, rng: Rng) -> None:
    path = [scene.object_path(rng), scene.path(manifest_key(DAY))][int(rng.integers(2))]
    path.unlink()
    path.mkdir()


DAMAGES = (
    flip_object, flip_manifest, truncate, swap, old_manifest, pickled, pickled_and_resealed,
    bad_path, linked, oversized, claims_to_be_large, repeated_key, another_spelling, other_fields,
    file_left_out, gone, folder_in_its_place,
)  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("damaged"))
    yield made
    assert not made.marker.exists(), "a file was unpickled"


def test_the_sound_one_is_loaded(scene: Scene) -> None:
    found = restore({"local": (scene.store, None)}, DAY, into=scene.folder / "good", home=None)
    assert found.manifest == scene.manifest
    assert put_back(scene.store, scene.manifest, scene.folder / "good_home") != []


def test_of_a_thousand_damaged_snapshots_none_is_loaded(scene: Scene) -> None:
    loaded = []
    into = scene.folder / "into"
    for seed in range(CASES):
        damage = DAMAGES[seed % len(DAMAGES)]
        damage(scene, np.random.default_rng(seed))
        try:
            restore({"local": (scene.store, None)}, DAY, into=into, home=scene.home)
        except REFUSALS:
            pass
        else:
            loaded.append((seed, damage.__name__))
        for left in (path for path in (into, scene.home) if path.exists()):
            loaded.append((seed, f"{damage.__name__} left {left.name}"))
            shutil.rmtree(left)
        scene.mended()
    assert loaded == []
    assert scene.store.get(manifest_key(DAY)) == scene.manifest.to_bytes()


def test_a_sound_manifest_that_the_ledger_does_not_know_is_refused(scene: Scene) -> None:
    with pytest.raises(SnapshotDamaged, match="that the ledger knows"):
        restore({"local": (scene.store, "0" * 64)}, DAY, into=scene.folder / "x", home=None)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_no_entry_has_such_a_path(path: str) -> None:
    with pytest.raises(BanditError, match="paths must be those"):
        entry_of(path, b"", EntryKind.POLICY)


def test_only_days_are_snapshots() -> None:
    keys = ["manifests/2026-03-01.json", "manifests/2026-02-31.json", "manifests/x.json"]
    keys += ["manifests/2026-03-01.json.part", "manifests/a/2026-03-01.json"]
    assert dates_of(keys) == [date(2026, 3, 1)]


def test_a_manifest_names_each_path_once_and_in_order() -> None:
    one, two = (
        entry_of(name, b"", EntryKind.POLICY) for name in ("allocation.json", "policies.json")
    )
    for entries in ((two, one), (one, one)):
        with pytest.raises(SnapshotDamaged, match="in order"):
            Manifest(date=DAY, made_at=datetime(2026, 3, 3, tzinfo=UTC), ledger="l", schema="s",
                     version="v", entries=entries, left_out={})  # fmt: skip


def test_what_was_written_is_read(scene: Scene) -> None:
    assert read_manifest(scene.manifest.to_bytes(), day=DAY) == scene.manifest
    with pytest.raises(InvalidInput):
        restore({"local": (scene.store, None)}, DAY, into=scene.folder, home=None)
