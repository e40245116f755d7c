"""Run the benchmarks: `run.py [GROUP] [--quick]`.

A benchmark is a script `benchmarks/<group>/<name>.py` (a leading underscore marks a helper). It
takes `--quick`, prints one line per claim to stdout, progress to stderr, and exits 0:

    NAME ours=… yardstick=… ratio=… target=… met|missed

A missed speed fails nothing, because it says as much about the machine as about the code; exit 1
means that a script crashed, hung or claimed nothing. 2 is a usage error. With `--quick` two scripts
run at a time: nobody is to believe its speeds.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLAIM = re.compile(r"\S+ ours=\S+ yardstick=\S+ ratio=\S+ target=\S+ (met|missed)")
SCRIPT_SECONDS_MAX = 1800


def scripts_of(group: str | None) -> list[Path]:
    """The benchmark scripts of one group, or of all."""
    found = sorted(HERE.glob(f"{group or '*'}/*.py"))
    return [path for path in found if not path.name.startswith("_")]


def claims_of(script: Path, *, quick: bool) -> list[str]:
    """Run one script and give its claims; empty, with the reason printed, where it failed."""
    print(f"running {script.relative_to(HERE)}", file=sys.stderr, flush=True)
    command = [sys.executable, str(script), *(["--quick"] if quick else [])]
    try:
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, timeout=SCRIPT_SECONDS_MAX
        )
    except subprocess.TimeoutExpired:
        print(f"{script}: no end after {SCRIPT_SECONDS_MAX} s", file=sys.stderr)
        return []
    claims = [line for line in ran.stdout.splitlines() if CLAIM.fullmatch(line)]
    if ran.returncode != 0 or not claims:
        print(ran.stdout, file=sys.stderr)
        why = f"exit code {ran.returncode}" if ran.returncode != 0 else "it printed no claim"
        print(f"{script}: {why}", file=sys.stderr)
        return []
    return claims


def main() -> int:
    """Run what the command line asks for and print the claims; the exit code."""
    parser = argparse.ArgumentParser(description="Measure each claim beside its yardstick.")
    groups = sorted({path.parent.name for path in scripts_of(None)})
    parser.add_argument("group", nargs="?", choices=groups, help="one folder of benchmarks/")
    parser.add_argument("--quick", action="store_true", help="short form, for correctness only")
    asked = parser.parse_args()
    met = missed = failed = 0
    with ThreadPoolExecutor(2 if asked.quick else 1) as pool:
        scripts = scripts_of(asked.group)
        for claims in pool.map(partial(claims_of, quick=asked.quick), scripts):
            for claim in claims:
                print(claim, flush=True)
            met += sum(claim.endswith(" met") for claim in claims)
            missed += sum(claim.endswith(" missed") for claim in claims)
            failed += not claims
    print(f"{met} claims met, {missed} missed, {failed} scripts failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
