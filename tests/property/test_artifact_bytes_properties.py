"""One changed bit, anywhere in a stored policy, and it is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_policy import FILES, GRAPH, MANIFEST, WEIGHTS, files_of, planted, stored

from bandit.core.model import PolicySha
from learners.artifact import read
from learners.sealed_files import ArtifactRefused


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PolicySha]:
    root = tmp_path_factory.mktemp("policies")
    return root, stored(root).sha


def flipped(content: bytes, place: float, bit: int) -> bytes:
    at = min(int(place * len(content)), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


places = st.floats(0, 1)
bits = st.integers(0, 7)


@given(st.sampled_from([*FILES, MANIFEST]), places, bits)
def test_any_flipped_bit_is_refused_and_its_file_named(
    policy: tuple[Path, PolicySha], name: str, place: float, bit: int
) -> None:
    root, sha = policy
    path = root / sha / name
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, place, bit))
    try:
        with pytest.raises(ArtifactRefused) as refused:
            read(root, sha)
    finally:
        path.write_bytes(whole)
    assert refused.value.file == name
    assert read(root, sha).sha == sha


@given(st.sampled_from([WEIGHTS, GRAPH]), places, bits)
def test_a_flipped_bit_under_a_hash_that_fits_is_refused_too(
    policy: tuple[Path, PolicySha], name: str, place: float, bit: int
) -> None:
    files = files_of(*policy)
    with tempfile.TemporaryDirectory() as folder:
        changed = {**files, name: flipped(files[name], place, bit)}
        sha = planted(Path(folder), changed)
        with pytest.raises(ArtifactRefused):
            read(Path(folder), sha)
