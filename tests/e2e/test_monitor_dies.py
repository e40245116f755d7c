"""The dead man's switch for real: a service, a monitor that is killed with -9, and a bot."""

from __future__ import annotations

import signal
import subprocess
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from commands import free_port, running, wait_for
from ledger import CHALLENGER, open_btc
from sqlalchemy import Engine, text
from waiting import until

from bandit.core.watch import Pulse
from bandit.service import watching
from liveops.client import Assignment, Client, Unwatched

# The monitor looks once a second. What is waited for here lasts for seconds, and is asked again.
SETTINGS = "operations: {monitor_throttle_intervals: 3, monitor_halt_intervals: 9}\n"
WAYS = ("--policy-sha", CHALLENGER, "--mode", "continuous", "--interval", "1")


class Bot:
    """A bot that sees one opportunity after the other, and trades none of them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.opener = client.assign("opener", "BTCUSD")
        self._units = count()

    def next(self) -> Assignment:
        """Ask for an opportunity that nobody has asked for."""
        return self.client.assign(f"u-{next(self._units)}", "BTCUSD")

    def is_watched(self) -> bool:
        """Whether the next opportunity may be traded as ever, and the service waits for someone."""
        with suppress(Unwatched):
            made = self.next()
            known = self.client._client._driver.core._contact.watch
            return not made.is_unwatched and known.throttle_seconds is not None
        return False

    def is_throttled(self) -> bool:
        made = self.next()
        return made.is_unwatched and made.size_multiplier == 0.5

    def is_halted(self) -> bool:
        try:
            self.next()
        except Unwatched:
            return True
        return False

    def may_close(self) -> bool:
        """Whether a decision about its open position is as ever."""
        made = self.client.assign(f"p-{next(self._units)}", "BTCUSD", position=self.opener)
        return made.size_multiplier == 1.0 and self.client.claim(made) is not None


def newest(engine: Engine) -> Pulse:
    [found] = watching.newest(engine)
    return found


def test_a_monitor_killed_with_9_throttles_bots_then_stops_them_until_it_is_back(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine, now=datetime.now(UTC))
    config, port = tmp_path / "config.yaml", free_port()
    config.write_text(SETTINGS)
    ledger = {"LIVEOPS_DATABASE_URL": database_url}

    def monitor(log: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return running(*WAYS, name="live_ops_monitor", home=tmp_path, log=tmp_path / log, **ledger)

    ways = ("serve", "--port", str(port), "--config", str(config))
    with running(*ways, home=tmp_path, log=tmp_path / "serve.log", **ledger) as service:
        wait_for("serving http", tmp_path / "serve.log", service)
        url = f"http://127.0.0.1:{port}"
        with Client(url, "btc", spool_dir=tmp_path / "spool", deadline_seconds=30.0) as client:
            bot = Bot(client)
            assert not bot.next().is_unwatched, "nobody is waited for"
            with monitor("first.log") as first:
                wait_for("nothing is flagged", tmp_path / "first.log", first)
                until(bot.is_watched)
                first.send_signal(signal.SIGKILL)
                first.wait(60)
            assert not newest(engine).is_ended, "killed, not ended"
            until(bot.is_throttled)
            until(bot.is_halted)
            assert bot.may_close()
            with monitor("second.log") as second:
                wait_for("nothing is flagged", tmp_path / "second.log", second)
                until(bot.is_watched)
                assert bot.may_close()
                second.send_signal(signal.SIGTERM)
                assert second.wait(60) == 0
            assert newest(engine).is_ended
            until(lambda: not bot.is_watched())  # nobody is waited for
            assert not bot.next().is_unwatched
            client.close(timeout=0)
    with engine.connect() as connection:
        said = connection.execute(
            text("SELECT action FROM audit_log WHERE action LIKE 'monitor%' ORDER BY id")
        )
        assert list(said.scalars()) == ["monitor_started", "monitor_started", "monitor_ended"]
