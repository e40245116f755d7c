"""The disk under the ledger is full: nobody is told of what is not stored, and nothing restarts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from bots import Bots, trading
from commands import BIN, environment, free_port, wait_for

from bandit.storage.engine import connect
from benchmarks.operation_check import faults
from benchmarks.operation_log import Phase, Verb
from benchmarks.temporary_ledger import EXPERIMENT, INSTRUMENT, open_experiment
from liveops.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.real_part

DISK = "320m"  # a server asks for 200 MB to start, and has 40 MB of its own
ASSIGN = f"/v1/experiments/{EXPERIMENT}/assignments"
NO_SPACE = "No space left on device"
ON_SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNTED = 'mount -t tmpfs -o size="$1" tmpfs "$2" && chmod 711 "$2" && shift 2 && exec "$@"'


@dataclass(kw_only=True)
class Host:
    """A service whose state lies on a small disk, which only its own processes see mounted."""

    process: subprocess.Popen[bytes]
    url: str
    place: Path
    log: Path

    @property
    def disk(self) -> Path:
        """The same disk, as we see it."""
        return Path(f"/proc/{self.process.pid}/root{self.place}")

    def fill(self) -> None:
        """Take all the space there is."""
        with (self.disk / "ballast").open("ab", buffering=0) as ballast:
            for size in (2**20, 4096):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError as error:
                    assert error.strerror == NO_SPACE  # noqa: PT017 - what else could it be

    def free(self) -> None:
        """Give it back."""
        (self.disk / "ballast").unlink()

    def server(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(data_dir=self.disk / "var" / "postgres")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `liveops` beside the service, where the disk is mounted."""
        enter = ["nsenter", "--target", str(self.process.pid), "--user", "--mount"]
        return subprocess.run(
            [*enter, "--preserve-credentials", str(BIN / "liveops"), *arguments],
            env=environment(self.place / "var"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # the server may have to run as another user
        with running_on_small_disk(Path(folder)) as host:
            yield host


@contextmanager
def running_on_small_disk(folder: Path) -> Iterator[Host]:
    """Serve as long as the context lasts, or skip where nothing can be mounted."""
    place, log, port = folder / "disk", folder / "log", free_port()
    place.mkdir()
    for program in ("unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH (Debian packages util-linux and mount)")
    arguments = [MOUNTED, "sh", DISK, str(place)]
    tried = subprocess.run([*ON_SMALL_DISK, *arguments, "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no disk of our own can be mounted here: {tried.stderr.decode().strip()}")
    serve = [str(BIN / "liveops"), "serve", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*ON_SMALL_DISK, *arguments, *serve],
            env=environment(place / "var"),
            stdout=output,
            stderr=output,
        )
    try:
        wait_for("serving http", log, process)
        yield Host(process=process, url=f"http://127.0.0.1:{port}", place=place, log=log)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def bots(host: Host, request: pytest.FixtureRequest) -> Iterator[Bots]:
    """Bots that trade at it; at the end the ledger has what they were told, and no more."""
    engine = connect(host.server().url("liveops"))
    open_experiment(engine, challenger_ppm=100_000)
    engine.dispose()
    names = [f"{request.node.name}-{number}" for number in range(4)]
    with trading(dict.fromkeys(names, host.url)) as bots:
        bots.await_more(Phase.OK, 12)
        yield bots
        bots.await_more(Phase.OK, 12)
    with psycopg.connect(plain(host)) as ledger:
        assert faults(bots.entries(), ledger) == []
    # It was one process all the time.
    assert host.process.poll() is None


def plain(host: Host) -> str:
    return host.server().url("liveops").replace("postgresql+psycopg:", "postgresql:")


def asked(host: Host, unit: str) -> httpx.Response:
    # More than the pages that are there already could hold, and of no pattern.
    noise = [os.urandom(1000).hex() for _ in range(20)]
    body = {"unit_id": unit, "instrument": INSTRUMENT, "context": noise}
    return httpx.post(f"{host.url}{ASSIGN}", json=body, timeout=5)


def refusals(bots: Bots) -> list[str]:
    """What they were told when they were not served."""
    return [entry.answer for entry in bots.entries() if entry.phase is Phase.UNKNOWN]


def use_files_up(ledger: psycopg.Connection[tuple[object, ...]]) -> None:
    """Begin one file of the write-ahead log after the other."""
    for _ in range(100):
        ledger.execute("SELECT pg_switch_wal(), pg_logical_emit_message(true, '', 'x')")


def test_full_disk_is_answered_503_and_over_once_there_is_space(host: Host, bots: Bots) -> None:
    assert asked(host, "before").status_code == 200
    host.fill()
    refused = asked(host, "meanwhile")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.json()["code"] == "ledger_unavailable"
    while NO_SPACE not in "".join(refusals(bots)):
        bots.await_more(Phase.UNKNOWN, 1)
    assert all('"code":"ledger_unavailable"' in answer for answer in refusals(bots))
    # What stops everything needs no space, and holds when there is some again.
    done = host.command("kill", "--reason", "the disk is full")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"latch {host.place}/var/KILLED set\n")
    host.free()
    bots.await_more(Phase.FAIL, 4, Verb.ASSIGN)
    assert asked(host, "meanwhile").json()["code"] == "killed"
    (host.disk / "var" / "KILLED").unlink()
    why = {"reason": "there is space again"}
    assert httpx.request("DELETE", f"{host.url}/v1/kill", json=why).status_code == 200
    bots.await_more(Phase.OK, 12)
    assert asked(host, "meanwhile").status_code == 200


def test_server_that_dies_for_want_of_space_comes_back_with_it(host: Host, bots: Bots) -> None:
    with psycopg.connect(plain(host), autocommit=True) as ledger:
        host.fill()
        # The next file of the write-ahead log cannot be made: the whole server gives up.
        with pytest.raises(psycopg.OperationalError):
            use_files_up(ledger)
    bots.await_more(Phase.UNKNOWN, 4)
    pause = threading.Event()
    # It is gone, down to its last process, and is told so as often as it would be started.
    while "the ledger cannot be revived: the disk of" not in host.log.read_text():
        assert host.process.poll() is None
        pause.wait(0.1)
    assert httpx.get(f"{host.url}/ping").status_code == 200
    assert httpx.get(f"{host.url}/ready").status_code == 503
    host.free()
    bots.await_more(Phase.OK, 12)
    assert httpx.get(f"{host.url}/ready").status_code == 200
