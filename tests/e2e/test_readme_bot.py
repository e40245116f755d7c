"""The bot loop that the README prints, run as printed against the service as printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

from commands import BIN, REPOSITORY, environment, free_port, running, wait_for
from guarded_ledger import seed_of

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def set_up_commands() -> list[list[str]]:
    block = re.search(r"## Put your bot beside it\n\n```\n(.*?)```", README, re.DOTALL)
    assert block is not None
    lines = [line.split("#")[0].strip() for line in block[1].splitlines()]
    assert lines[0] == ".venv/bin/liveops serve"
    return [shlex.split(line)[1:] for line in lines[1:]]


def bot() -> str:
    block = re.search(r"<!-- bot -->\n```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    return block[1]


def test_bot_of_the_readme_trades_through_the_service(tmp_path: Path) -> None:
    home, log, port = tmp_path / "var", tmp_path / "log", free_port()
    with running("serve", "--port", str(port), home=home, log=log) as process:
        wait_for("serving http", log, process)
        for arguments in set_up_commands():
            done = subprocess.run(
                [str(BIN / "liveops"), *arguments],
                env=environment(home),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        program = bot().replace(":8800/", f":{port}/")
        loop = [line for line in program.splitlines() if line.strip()]
        assert len(loop) <= 23, "the README promises a loop of about twenty lines"
        # Its policies are coins: with this one a pause refuses some, and paper ends it.
        coin = f"import random\ncoin = random.Random({seed_of(40, of=50)})\n"
        program = coin + program.replace("random.choice", "coin.choice")
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        url = f"http://127.0.0.1:{port}/v1/experiments/btc/report"
        with urllib.request.urlopen(url, timeout=30) as answer:
            arms = json.load(answer)["arms"]
    assert sum(arm["trades"] for arm in arms) == 40
    assert {arm["policy"] for arm in arms} == {"trend-v1", "trend-v2"}
