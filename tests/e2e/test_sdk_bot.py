"""Bots as processes of their own: one that is killed, and the one that docs/sdk.md prints."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from api_service import application
from commands import BIN, REPOSITORY, environment, free_port, running, wait_for
from guarded_ledger import seed_of
from ledger import NOON, open_btc
from sdk_bot import Hands
from sqlalchemy import Engine, text

from liveops.api.server import serving
from liveops.client import Client
from liveops.clock import VirtualClock

UNITS = 30

KILLED_BOT = """
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from liveops.client import Client

url, folder, units = sys.argv[1], sys.argv[2], int(sys.argv[3])
at = datetime(2026, 3, 1, 12, tzinfo=UTC)
client = Client(url, "btc", spool_dir=folder, deadline_seconds=30.0)
made = [client.assign(f"u-{n}", "BTCUSD") for n in range(units)]
for number, assignment in enumerate(made):
    client.outcome(
        assignment, pnl=Decimal(number), return_ratio=Decimal(number) / 10000, opened_at=at,
        closed_at=at,
    )
    print(number, flush=True)
sys.stdin.read()
"""


def pnl_by_unit(engine: Engine) -> dict[str, Decimal]:
    statement = text(
        "SELECT a.unit_id, o.pnl FROM outcomes o JOIN assignments a ON a.id = o.assignment_id"
    )
    with engine.connect() as connection:
        return {row.unit_id: row.pnl for row in connection.execute(statement)}


def test_a_killed_bot_loses_no_outcome_that_it_reported(engine: Engine, tmp_path: Path) -> None:
    open_btc(engine)
    app = application(engine, clock=VirtualClock(NOON))
    with serving(app, host="127.0.0.1", port=0) as url:
        program = [sys.executable, "-c", KILLED_BOT, url, str(tmp_path), str(UNITS)]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bot:
            assert bot.stdout is not None
            said = [int(bot.stdout.readline()) for _ in range(UNITS // 2)]
            # Somewhere between the spool and the acknowledgements of the batches under way.
            os.kill(bot.pid, signal.SIGKILL)
            said += [int(line) for line in bot.stdout.read().splitlines()]
        assert said == list(range(len(said)))
        with Client(url, "btc", spool_dir=tmp_path, **Hands().options()) as client:
            assert client.flush(60)
            assert (client.pending(), client.refused()) == (0, [])
    recorded = pnl_by_unit(engine)
    assert {f"u-{n}": Decimal(n) for n in said}.items() <= recorded.items()
    assert len(recorded) <= len(said) + 1  # the one it was killed in


def test_the_bot_of_the_docs_trades_through_the_service(tmp_path: Path) -> None:
    home, log, port = tmp_path / "var", tmp_path / "log", free_port()
    page = (REPOSITORY / "docs" / "sdk.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- bot -->\n```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    assert len([line for line in block[1].splitlines() if line.strip()]) <= 33
    # Its policy is a coin: one that no guard pauses, whenever its reports come in.
    coin = f"import random\ncoin = random.Random({seed_of(20, of=20)})\n"
    program = coin + block[1].replace(":8800", f":{port}").replace("random.choice", "coin.choice")
    with running("serve", "--port", str(port), home=home, log=log) as process:
        wait_for("serving http", log, process)
        for arguments in (
            "policy register trend-v1 --sha 11111111 --kind production",
            "experiment open btc --champion trend-v1 --capital 10000",
        ):
            command = [str(BIN / "liveops"), *shlex.split(arguments)]
            subprocess.run(command, env=environment(home), check=True, capture_output=True)
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment(home, PYTHONPATH=str(REPOSITORY)),
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        report = subprocess.run(
            [str(BIN / "liveops"), "report", "btc", "--json"],
            env=environment(home),
            capture_output=True,
            text=True,
        )
    assert '"trades": 20' in report.stdout, report.stdout + report.stderr
