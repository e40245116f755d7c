#!/usr/bin/env python3
"""Fail where a test was skipped that had no excuse: `unexpected_skips.py REPORT.xml`.

On a user's machine a test that needs a program from outside skips and says why. CI has installed
all of them, so the only excuses left are about where the checkout lies: "not beside this checkout"
for a folder that the project may not hand on, or who may enter it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET


def unexpected(report: Path, *, shared_present: bool) -> Iterator[str]:
    """Name and reason of each test that a JUnit report shows as skipped without an excuse."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # our own pytest wrote it
        for skip in case.iter("skipped"):
            reason = skip.get("message", "")
            excused = "this checkout" in reason and not (shared_present and "beside" in reason)
            if not excused and skip.get("type") != "pytest.xfail":
                yield f"{case.get('classname')}::{case.get('name')}: {reason}"


def main() -> int:
    """List the unexpected skips of the report that the command line names; the exit code."""
    shared = Path(__file__).resolve().parents[2] / "shared"
    found = list(unexpected(Path(sys.argv[1]), shared_present=shared.is_dir()))
    for line in found:
        print(f"skipped, but should have run: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
