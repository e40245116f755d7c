"""Stored policies are loaded once, off the loop, kept within a bound, and never when refused."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from made_up_policy import WEIGHTS, deciding

from bandit.core.model import PolicySha
from learners.decider import Decider
from learners.embedding_memory import Embeddings
from learners.sealed_files import ArtifactRefused
from liveops import deciders as module
from liveops.deciders import Deciders, loaded


def test_many_who_ask_at_once_get_the_one_that_was_loaded(tmp_path: Path) -> None:
    sha = deciding(tmp_path).sha

    async def ask() -> list[Decider | None]:
        found = Deciders(tmp_path)
        first = await asyncio.gather(*(found.find(sha) for _ in range(50)))
        return [*first, await found.find(sha)]

    found = asyncio.run(ask())
    assert found[0] is not None
    assert found[0].sha == sha
    assert {id(decider) for decider in found} == {id(found[0])}


def test_the_loop_goes_on_while_one_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha, go_on = deciding(tmp_path).sha, threading.Event()

    def slowly(root: Path, sha: PolicySha, *, embeddings: Embeddings) -> Decider | None:
        assert go_on.wait(60), "the loop stood still"
        return loaded(root, sha, embeddings=embeddings)

    monkeypatch.setattr(module, "loaded", slowly)

    async def ask() -> tuple[Decider | None, Decider | None]:
        found = Deciders(tmp_path)
        hasty, patient = (asyncio.create_task(found.find(sha)) for _ in range(2))
        await asyncio.sleep(0)
        hasty.cancel()  # who hangs up does not take it from the other
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        return await patient, await found.find(sha)

    patient, later = asyncio.run(ask())
    assert patient is not None
    assert later is patient


def test_what_is_loaded_ahead_is_there_for_whoever_asks(tmp_path: Path) -> None:
    first, refused, last = (deciding(tmp_path, slope=slope).sha for slope in (1.0, 2.0, 3.0))
    (tmp_path / refused / WEIGHTS).write_bytes(b"")

    async def ask() -> list[Decider | None]:
        found = Deciders(tmp_path)
        await found.load([first, refused, PolicySha("0" * 64), last])
        for sha in (first, last):
            shutil.rmtree(tmp_path / sha)
        with pytest.raises(ArtifactRefused):
            await found.find(refused)
        return [await found.find(sha) for sha in (first, last)]

    assert [decider and decider.sha for decider in asyncio.run(ask())] == [first, last]


def test_who_was_asked_longest_ago_makes_room(tmp_path: Path) -> None:
    shas = [deciding(tmp_path, slope=slope).sha for slope in (1.0, 2.0, 3.0)]

    async def ask() -> list[Decider | None]:
        found = Deciders(tmp_path, kept_max=2)
        order = [0, 1, 0, 2, 0, 1]  # 1 leaves for 2, and comes again
        return [await found.find(shas[number]) for number in order]

    first, second, again, _, kept, anew = asyncio.run(ask())
    assert first is again is kept
    assert second is not anew
    assert second is not None
    assert anew is not None
    assert second.sha == anew.sha


def test_what_is_not_stored_here_decides_nothing_until_it_is(tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "artifacts"
    sha = deciding(elsewhere).sha

    async def ask() -> list[Decider | None]:
        found = Deciders(here)
        before = [await found.find(sha), await found.find(PolicySha("eee02a74"))]
        shutil.copytree(elsewhere, here)
        return [*before, await found.find(sha)]

    *before, after = asyncio.run(ask())
    assert before == [None, None]
    assert after is not None


def test_a_refused_one_names_its_file_and_is_loaded_once_it_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    sha = deciding(root).sha
    weights = root / sha / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\x01")

    async def ask() -> tuple[list[BaseException | Decider | None], Decider | None]:
        found = Deciders(root)
        asked = [found.find(sha) for _ in range(5)]
        refused = await asyncio.gather(*asked, return_exceptions=True)
        weights.write_bytes(whole)
        return refused, await found.find(sha)

    refused, decider = asyncio.run(ask())
    for error in refused:
        assert isinstance(error, ArtifactRefused)
        assert error.file == f"artifacts/{sha}/{WEIGHTS}"
    assert decider is not None


def test_a_link_in_the_place_of_a_policy_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    root.mkdir()
    sha = deciding(tmp_path / "elsewhere").sha
    (root / sha).symlink_to(tmp_path / "elsewhere" / sha)
    with pytest.raises(ArtifactRefused, match="must be a directory and no link"):
        loaded(root, sha)
    (root / sha).unlink()
    (root / sha).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactRefused, match="must be a directory and no link"):
        loaded(root, sha)


def test_the_service_loads_no_runtime_before_it_is_asked_to_decide() -> None:
    program = (
        "import liveops.cli, liveops.api.application, liveops.doctor, sys\n"
        "print(*sorted({'onnxruntime', 'torch', 'onnx'} & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""
