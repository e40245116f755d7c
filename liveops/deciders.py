"""Stored policies that decide in this process: loaded once, off the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bandit.core.model import PolicySha
from learners.embedding_memory import Embeddings
from learners.sealed_files import ArtifactRefused
from liveops.ledger_server import state_home

if TYPE_CHECKING:
    from config.settings import Settings
    from learners.decider import Decider

KEPT_MAX: Final = 64
"""Policies kept in memory; who was asked longest ago makes room."""

_SHA_DIGITS: Final = 64  # whoever is named by less has no content here
log = logging.getLogger(__name__)


def artifact_home(settings: Settings) -> Path:
    """Return the directory that holds stored policies."""
    return state_home(settings) / "artifacts"


def loaded(root: Path, sha: PolicySha, *, embeddings: Embeddings | None = None) -> Decider | None:
    """Return the policy `sha` below `root`, ready to decide; None where nothing lies there.

    Whoever decides in one thread may share the `embeddings` of its policies.
    Raises `ArtifactRefused` for what lies there and is not that policy.
    """
    if len(sha) != _SHA_DIGITS or not os.path.lexists(root / sha):
        return None
    # Here, not above: a service that nobody asks to decide loads no runtime.
    from learners.artifact import read
    from learners.decider import Decider

    try:
        return Decider(read(root, sha), embeddings=embeddings)
    except ArtifactRefused as error:
        file = f"{root.name}/{sha}/{error.file}"
        raise ArtifactRefused(file=file, rule=error.rule, found=error.found) from error


class Deciders:
    """The policies below one directory, for use on one event loop.

    Each is loaded once, however many ask at a time, one after the other on a thread of its own.
    What is missing or refused is looked at anew whenever it is asked for.
    """

    def __init__(self, root: Path, *, kept_max: int = KEPT_MAX) -> None:
        """Load nothing yet."""
        self._root = root
        self._kept_max = kept_max
        self._kept: OrderedDict[PolicySha, Decider] = OrderedDict()
        self._loading: dict[PolicySha, asyncio.Future[Decider | None]] = {}
        self._embeddings = Embeddings()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="liveops-deciders")

    def close(self) -> None:
        """Load nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def find(self, sha: PolicySha) -> Decider | None:
        """Return a policy, or None where none is stored here; raises `ArtifactRefused`."""
        known = self._kept.get(sha)
        if known is not None:
            self._kept.move_to_end(sha)
            return known
        if len(sha) != _SHA_DIGITS:
            return None
        loading = self._loading.get(sha)
        if loading is None:
            loop = asyncio.get_running_loop()
            load = partial(loaded, self._root, sha, embeddings=self._embeddings)
            loading = loop.run_in_executor(self._thread, load)
            self._loading[sha] = loading
            loading.add_done_callback(partial(self._keep, sha))
        # One caller that hangs up must not take the policy from the others.
        return await asyncio.shield(loading)

    async def of(self, shas: Iterable[PolicySha]) -> dict[PolicySha, Decider]:
        """Return those of the policies that are stored here; raises `ArtifactRefused`."""
        found = {sha: await self.find(sha) for sha in shas}
        return {sha: decider for sha, decider in found.items() if decider is not None}

    async def load(self, shas: Iterable[PolicySha]) -> None:
        """Load policies before anybody asks; one that is refused is told to whoever asks."""
        for sha in shas:
            with suppress(ArtifactRefused):
                await self.find(sha)

    def _keep(self, sha: PolicySha, loading: asyncio.Future[Decider | None]) -> None:
        del self._loading[sha]
        if loading.cancelled():
            return
        error = loading.exception()
        if error is not None:
            log.error("a stored policy is not loaded", extra={"sha": sha, "detail": str(error)})
            return
        decider = loading.result()
        if decider is not None:
            self._kept[sha] = decider
            if len(self._kept) > self._kept_max:
                self._kept.popitem(last=False)
