"""`liveops import outcomes`: what a file brings in, what it leaves out, and that it may repeat."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ledger import NOON, assign, count, open_btc
from sqlalchemy import Engine, text

from bandit.core.errors import InvalidInput
from bandit.core.model import Assignment
from bandit.service import rebuilding
from liveops import cli
from liveops.connectors.outcome_files import outcome_rows

HEADER = "assignment_id,pnl,return,opened_at,closed_at,fees,no_trade"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def made(engine: Engine) -> list[Assignment]:
    open_btc(engine)
    return assign(engine, [f"u-{i:04}" for i in range(1000)])


@pytest.fixture
def run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.setenv("LIVEOPS_DATABASE_URL", database_url)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.exit_code(cli.app, ["import", "outcomes", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def trade_line(assignment: Assignment, result: str = "0.001", minutes: int = 60) -> str:
    opened = assignment.decided_at
    closed = opened + timedelta(minutes=minutes)
    pnl = Decimal(result) * 1000
    return f"{assignment.id},{pnl},{result},{opened.isoformat()},{closed.isoformat()},0.25,"


def written(path: Path, lines: Sequence[str], header: str = HEADER) -> Path:
    data = "\n".join([header, *lines]).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["outcomes.csv", "outcomes.csv.gz"])
def test_file_is_stored_once_however_often_it_comes(
    engine: Engine, made: list[Assignment], run: Run, tmp_path: Path, name: str
) -> None:
    # The same units in 2500 lines: more than one batch, with repetitions inside and across them.
    lines = [trade_line(made[i % 1000], minutes=1 + i % 1000) for i in range(2500)]
    path = written(tmp_path / name, lines)
    assert run(path)[:2] == (0, "2500 rows: 1000 new, 1500 known before, 0 refused\n")
    assert run(path)[:2] == (0, "2500 rows: 0 new, 2500 known before, 0 refused\n")
    assert count(engine, "outcomes") == 1000
    assert rebuilding.compare(engine, now=NOON).mismatches == ()


def test_refused_rows_are_told_by_line_and_take_no_other_with_them(
    engine: Engine, made: list[Assignment], run: Run, tmp_path: Path
) -> None:
    stranger = "01234567-89ab-8def-8123-456789abcdef"
    lines = [
        trade_line(made[0]),
        trade_line(made[0], "0.002"),
        trade_line(made[1], "1000"),
        trade_line(made[2]).replace(str(made[2].id), stranger),
        trade_line(made[2]).replace(str(made[2].id), "u-0002"),
        "",
        '"",,,',
        trade_line(made[3]).replace("+00:00", ""),
        f"{made[4].id},,,,,,true",
        f"{made[5].id},1,,,,,true",
        f"{made[6].id},1,,,,,",
        trade_line(made[7], "NaN"),
        trade_line(made[8]),
    ]
    rejects = tmp_path / "rejects.csv"
    code, out, err = run(written(tmp_path / "o.csv", lines), "--rejects", rejects, "--json")
    assert code == 1
    assert json.loads(out) == {"rows": 12, "created": 3, "known": 0, "refused": 9}
    with rejects.open(newline="") as file:
        refused = list(csv.DictReader(file))
    assert [(row["line"], row["field"]) for row in refused] == [
        ("3", "row"),
        ("4", "return"),
        ("5", "assignment_id"),
        ("6", "assignment_id"),
        ("8", "row"),
        ("9", "opened_at"),
        ("11", "pnl"),
        ("12", "return"),
        ("13", "pnl"),
    ]
    assert "line 5: assignment_id: must be an assignment of this ledger, found 0123" in err
    for row in refused:
        assert f"line {row['line']}: {row['field']}: {row['rule']}, found {row['found']}\n" in err
    assert count(engine, "outcomes") == 3


def test_parquet_brings_numbers_times_and_flags_of_its_own(
    engine: Engine, made: list[Assignment], run: Run, tmp_path: Path
) -> None:
    closed = NOON + timedelta(hours=1)
    table = pa.table(
        {
            "assignment_id": [str(a.id) for a in made[:3]],
            "pnl": pa.array([Decimal("12.34000000"), Decimal("-1.00000000"), None]),
            "return": pa.array([0.1, -0.001, None]),
            "opened_at": pa.array([NOON, NOON, None], pa.timestamp("ns", "UTC")),
            "closed_at": pa.array([int(closed.timestamp() * 1000)] * 2 + [None]),
            "no_trade": pa.array([False, None, True]),
        }
    )
    pq.write_table(table, tmp_path / "o.parquet")
    assert run(tmp_path / "o.parquet")[:2] == (0, "3 rows: 3 new, 0 known before, 0 refused\n")
    with engine.connect() as connection:
        statement = text(
            "SELECT pnl, return_ratio, no_trade, closed_at FROM outcomes ORDER BY unit_id"
        )
        found = [tuple(row) for row in connection.execute(statement)]
    assert found == [
        (Decimal("12.34"), Decimal("0.1"), False, closed),
        (Decimal(-1), Decimal("-0.001"), False, closed),
        (0, 0, True, NOON),
    ]


NO_TIME = "must be ISO 8601 with an offset or Z, or epoch milliseconds"
OUT_OF_BOUNDS = "must lie between the years 2000 and 2100"
TIMES = {
    "2026-03-01T13:00:00": NO_TIME,
    "2027-03-28T02:30:00": NO_TIME,
    "2026-10-25T02:30:00 Europe/Berlin": NO_TIME,
    "2026-03-01T13:00:60Z": NO_TIME,
    "2026-03-01": NO_TIME,
    "infinity": NO_TIME,
    "-infinity": NO_TIME,
    "now": NO_TIME,
    "294276-12-31T23:59:59Z": NO_TIME,
    "1999-12-31T23:59:59Z": OUT_OF_BOUNDS,
    "2100-01-01T00:00:00Z": OUT_OF_BOUNDS,
    "9223372036854775": NO_TIME,
    "922337203685477": OUT_OF_BOUNDS,
    "2026-03-01T11:59:59Z": "must not be before opened_at 2026-03-01T12:00:00+00:00",
    "2099-12-31T23:59:59Z": "must not lie more than 5 minutes after now",
}


def test_impossible_times_are_refused_by_rule_and_lawful_ones_beside_them_are_not(
    engine: Engine, made: list[Assignment], run: Run, tmp_path: Path
) -> None:
    def line(number: int, closed_at: str) -> str:
        return f"{made[number].id},1,0.001,2026-03-01T12:00:00Z,{closed_at},,"

    lawful = ["2026-03-01T14:00:00+01:00", "1772370000000", "2026-03-01T13:00:00Z"]
    lines = [line(number, at) for number, at in enumerate([*TIMES, *lawful])]
    # Before its decision, by more than two clocks differ.
    early = line(99, lawful[0]).replace("T12:00:00Z", "T11:54:59Z")
    rejects = tmp_path / "rejects.csv"
    assert run(written(tmp_path / "o.csv", [*lines, early]), "--rejects", rejects)[0] == 1
    with rejects.open(newline="") as file:
        *refused, last = csv.DictReader(file)
    assert [(row["line"], row["field"]) for row in refused] == [
        (str(number), "closed_at") for number in range(2, 2 + len(TIMES))
    ]
    for row, (told, rule) in zip(refused, TIMES.items(), strict=True):
        assert row["rule"].startswith(rule), told
    assert (last["field"], last["rule"][:30]) == ("opened_at", "must not be before the decisio")
    with engine.connect() as connection:
        statement = text("SELECT DISTINCT closed_at FROM outcomes")
        assert list(connection.execute(statement).scalars()) == [NOON + timedelta(hours=1)]
    assert count(engine, "outcomes") == len(lawful)


def test_time_of_parquet_that_nobody_can_hold_is_refused_in_its_row(
    engine: Engine, made: list[Assignment], run: Run, tmp_path: Path
) -> None:
    noon = int(NOON.timestamp()) * 10**6
    # Of the second, a thousand are in 64 bits the microseconds of that noon.
    for unit, far in (("us", 9_223_371_331_200_000_000), ("ms", 2_305_844_781_580_093_952)):
        steps = {"us": 1, "ms": 1000}[unit]
        times = pa.array([far, noon // steps], pa.int64()).cast(pa.timestamp(unit, "UTC"))
        columns = {"opened_at": times, "closed_at": times, "pnl": ["1", "1"], "return": [0.1, 0.1]}
        ids = [str(made[0].id), str(made[1].id)]
        pq.write_table(pa.table({"assignment_id": ids} | columns), tmp_path / "o.parquet")
        code, _, err = run(tmp_path / "o.parquet")
        assert code == 1
        assert f"line 1: opened_at: {NO_TIME}, found {far} as timestamp[{unit}, tz=UTC]" in err
    assert count(engine, "outcomes") == 1


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("o.txt", b"", "must end in .csv, .csv.gz or .parquet"),
        ("o.csv", b"", "must be assignment_id and others of"),
        ("o.csv", b"assignment_id,pnl,profit\n", "found profit"),
        ("o.csv", b"assignment_id,pnl,pnl\n", "each once"),
        ("o.csv", b'assignment_id\n"open', "must be CSV"),
        ("o.csv", b"assignment_id\n\xff\n", "must be a readable file"),
        ("o.csv.gz", b"no gzip", "must be a readable file"),
        ("o.parquet", b"PAR1", "must be Parquet"),
    ],
)
def test_file_that_cannot_be_read_is_wrong_input(
    made: list[Assignment], run: Run, tmp_path: Path, name: str, content: bytes, rule: str
) -> None:
    (tmp_path / name).write_bytes(content)
    code, out, err = run(tmp_path / name)
    assert (code, out) == (2, "")
    assert rule in err


def test_file_that_breaks_off_keeps_what_came_before(
    engine: Engine, made: list[Assignment], run: Run, tmp_path: Path
) -> None:
    lines = [trade_line(a) for a in made]
    path = tmp_path / "o.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *lines, *lines]).encode())[:-2000])
    assert run(path)[0] == 2
    whole = written(tmp_path / "o.csv", lines)
    assert run(whole)[0] == 0
    assert count(engine, "outcomes") == 1000


def test_share_grows_to_the_whole_file(tmp_path: Path) -> None:
    lines = ["01234567-89ab-8def-8123-456789abcdef"] * 50_000
    shares = [
        row.share for row in outcome_rows(written(tmp_path / "o.csv", lines, "assignment_id"))
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == 1.0
    with pytest.raises(InvalidInput):
        next(outcome_rows(tmp_path / "absent.csv"))
