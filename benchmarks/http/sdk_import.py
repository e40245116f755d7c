"""What importing the SDK adds to the start of a bot.

The first claim is held against a fixed time beyond a bare interpreter; the yardstick of the second
is the smallest import that a bot makes anyway.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from statistics import median

from benchmarks.claims import QUICK, Target, alternated, claim, paired

ROUNDS = 3 if QUICK else 40

# Seconds that the import may take beyond the start of the interpreter.
SECONDS_MAX = 0.100
# Of a program that imports json alone: a bot's start may not become three of them.
STARTS_MAX = 3.0


def starting(program: str) -> Callable[[], None]:
    """Start an interpreter that runs `program` and ends."""

    def start() -> None:
        subprocess.run([sys.executable, "-c", program], check=True)

    return start


def main() -> None:
    """Print the claims."""
    work = {
        "sdk": starting("import liveops.client"),
        "pass": starting("pass"),
        "json": starting("import json"),
    }
    work["sdk"]()  # compiles what is not compiled yet
    seconds = alternated(work, rounds=ROUNDS)
    added = median(s - p for s, p in zip(seconds["sdk"], seconds["pass"], strict=True))
    claim(
        "http.sdk_import.added",
        ours=f"{added * 1000:.0f}ms",
        yardstick=f"{SECONDS_MAX * 1000:.0f}ms",
        ratio=added / SECONDS_MAX,
        side=Target.AT_MOST,
        target=1.0,
    )
    claim(
        "http.sdk_import.start",
        ours=f"{median(seconds['sdk']) * 1000:.0f}ms",
        yardstick=f"{median(seconds['json']) * 1000:.0f}ms",
        ratio=paired(seconds["sdk"], seconds["json"]),
        side=Target.AT_MOST,
        target=STARTS_MAX,
    )


if __name__ == "__main__":
    main()
