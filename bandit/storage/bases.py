"""Bases: what the outcomes that left an arm amount to, and where every count of it starts."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from bandit.core.audit_chain import AuditId
from bandit.core.evidence import Tally
from bandit.core.exploration import Explored
from bandit.core.fill_gap import FillGap
from bandit.core.paper_days import PaperSums
from bandit.core.tally import DaySums, Fold, Sums
from bandit.storage.engine import one, run, streamed
from bandit.storage.evidence import CohortKey, flat
from bandit.storage.paper_days import DayKey
from bandit.storage.statistics import fold_columns, fold_of

_TOLD = ("n_told", "released", "spent")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmBase:
    """The sums and the fold of aged outcomes; none of them was recorded after `recorded_to`.

    The fold has no last trade: whatever is still in the ledger comes after it.
    """

    sums: Sums
    fold: Fold
    recorded_to: datetime | None


NOTHING_AGED = ArmBase(sums=Sums(), fold=Fold(), recorded_to=None)


def of_arm(connection: Connection, arm_id: int) -> ArmBase:
    """Return an arm's base; `NOTHING_AGED` where nothing has left."""
    found = one(connection, "SELECT * FROM arm_bases WHERE arm_id = :arm_id", arm_id=arm_id)
    if found is None:
        return NOTHING_AGED
    return ArmBase(
        sums=Sums(**{name: found[name] for name in Sums.__slots__}),
        fold=fold_of(found | {"fold_n": found["n_trades"], "last_closed_at": None}),
        recorded_to=found["recorded_to"],
    )


def write(connection: Connection, arm_id: int, base: ArmBase) -> None:
    """Store an arm's base; the database refuses one that takes history back."""
    columns = asdict(base.sums) | fold_columns(base.fold)
    for name in ("fold_n", "last_closed_at", "last_unit_id"):
        del columns[name]
    columns["recorded_to"] = base.recorded_to
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    run(
        connection,
        f"INSERT INTO arm_bases (arm_id, {names}) VALUES (:arm_id, {values}) "  # noqa: S608 - names are ours
        f"ON CONFLICT (arm_id) DO UPDATE SET {changes}",
        arm_id=arm_id,
        **columns,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What a base grew by.

    Days, cohorts of draws and of pairs, trades with both results, paper, and what was charged to an
    exploration budget.
    """

    days: Mapping[tuple[date, str], DaySums]
    cohorts: Mapping[CohortKey, Tally]
    pairs: Mapping[CohortKey, Tally]
    gap: FillGap
    paper: Mapping[DayKey, PaperSums]
    explored: Explored


def seal(connection: Connection, arm_id: int, grew: Growth) -> dict[str, Any]:
    """Return what the audit log holds of a base that was just written, and of what it grew by.

    Of the base a digest, of the rest the sums themselves: what is written grows with none.
    """
    statement = "SELECT base_digest(b) AS digest FROM arm_bases b WHERE b.arm_id = :arm_id"
    found = one(connection, statement, arm_id=arm_id)
    assert found is not None
    days = [
        [day.isoformat(), instrument, *map(str, astuple(sums))]
        for (day, instrument), sums in grew.days.items()
    ]
    return {
        "arm": arm_id,
        "base": str(found["digest"]),
        "days": days,
        "cohorts": _proved(grew.cohorts),
        "pairs": _proved(grew.pairs),
        "gap": [*map(str, astuple(grew.gap))],
        "paper": [
            [str(key.arm_id), key.day.isoformat(), *map(str, astuple(sums))]
            for key, sums in grew.paper.items()
        ],
        "explored": [str(getattr(grew.explored, name)) for name in _TOLD],
    }


def _proved(cohorts: Mapping[CohortKey, Tally]) -> list[list[Any]]:
    return [
        [str(key.arm_id), str(key.champion_id), key.day.isoformat(), [*map(str, flat(tally))]]
        for key, tally in cohorts.items()
    ]


def drop_checkpoints(connection: Connection, arm_id: int, base: ArmBase) -> None:
    """Forget the checkpoints of what the base has taken up."""
    run(
        connection,
        "DELETE FROM equity_checkpoints WHERE arm_id = :arm_id AND n_trades <= :n",
        arm_id=arm_id,
        n=base.fold.n,
    )


class ChangedBase(NamedTuple):
    """A base that is not what the audit log holds of it; `audit_id` is None where it holds none."""

    audit_id: AuditId | None
    arm_id: str


_CHANGED = """
  SELECT l.id AS audit_id, coalesce(b.arm_id::text, l.arm_id) AS arm_id
  FROM (SELECT DISTINCT ON (x.arm_id) x.id, x.arm_id, x.digest FROM (
          SELECT id, details ->> 'arm' AS arm_id, details ->> 'base' AS digest
          FROM audit_log WHERE action = 'age' AND details ? 'base') x
        ORDER BY x.arm_id, x.id DESC) l
  FULL JOIN arm_bases b ON b.arm_id::text = l.arm_id
  WHERE l.digest IS DISTINCT FROM base_digest(b)
  ORDER BY 2
"""


def _summed(names: Iterable[str]) -> str:
    """Sum up what rows of the audit log tell under these names, from their third place on."""
    return ", ".join(
        f"sum(CASE WHEN pg_input_is_valid(x ->> {place}, 'numeric') THEN (x ->> {place})::numeric "
        f"ELSE 'NaN' END) AS {name}"
        for place, name in enumerate(names, 2)
    )


_STORED_DAY = ", ".join(f"d.{name}" for name in DaySums.__slots__)
_TOLD_DAY = ", ".join(f"t.{name}" for name in DaySums.__slots__)
_CHANGED_DAYS = f"""
  SELECT max(t.id) AS audit_id, coalesce(d.arm_id::text, t.arm_id) AS arm_id
  FROM aged_days d
  FULL JOIN (
    SELECT max(l.id) AS id, l.details ->> 'arm' AS arm_id, x ->> 0 AS day, x ->> 1 AS instrument,
           {_summed(DaySums.__slots__)}
    FROM audit_log l CROSS JOIN jsonb_array_elements(
      CASE jsonb_typeof(l.details -> 'days') WHEN 'array' THEN l.details -> 'days'
           ELSE '[]' END) x
    WHERE l.action = 'age' GROUP BY 2, 3, 4) t
  ON t.arm_id = d.arm_id::text AND t.day = to_char(d.day, 'YYYY-MM-DD')
    AND t.instrument = d.instrument
  WHERE ({_STORED_DAY}) IS DISTINCT FROM ({_TOLD_DAY})
  GROUP BY 2 ORDER BY 2
"""  # noqa: S608 - names are ours


_CHANGED_COHORTS = """
  SELECT max(t.id) AS audit_id, coalesce(c.arm_id::text, t.arm_id) AS arm_id
  FROM {table} c
  FULL JOIN (
    SELECT max(p.id) AS id, p.arm_id, p.champion_id, p.day,
           array_agg(p.told ORDER BY p.place) AS told
    FROM (
      SELECT max(l.id) AS id, x ->> 0 AS arm_id, x ->> 1 AS champion_id, x ->> 2 AS day, v.place,
             sum(CASE WHEN pg_input_is_valid(v.step, 'numeric') THEN v.step::numeric
                      ELSE 'NaN' END) AS told
      FROM audit_log l
      CROSS JOIN jsonb_array_elements(CASE jsonb_typeof(l.details -> '{told}')
        WHEN 'array' THEN l.details -> '{told}' ELSE '[]' END) x
      CROSS JOIN jsonb_array_elements_text(CASE jsonb_typeof(x -> 3)
        WHEN 'array' THEN x -> 3 ELSE '[]' END) WITH ORDINALITY v(step, place)
      WHERE l.action = 'age' GROUP BY 2, 3, 4, 5) p
    GROUP BY 2, 3, 4) t
  ON t.arm_id = c.arm_id::text AND t.champion_id = c.champion_id::text
    AND t.day = to_char(c.day, 'YYYY-MM-DD')
  WHERE ARRAY[c.n_challenger, c.n_champion]::numeric[] || c.scores || c.wealth
        IS DISTINCT FROM t.told
  GROUP BY 2 ORDER BY 2
"""


def _summed_in(told: str, names: Sequence[str]) -> str:
    """Sum up what rows of the audit log tell of one arm under these names, in this order."""
    return ", ".join(
        f"sum(CASE WHEN pg_input_is_valid(l.details #>> '{{{told},{place}}}', 'numeric') "
        f"THEN (l.details #>> '{{{told},{place}}}')::numeric ELSE 'NaN' END) AS {name}"
        for place, name in enumerate(names)
    )


_TOLD_GAP = _summed_in("gap", ("n", "total", "squares"))
_CHANGED_GAPS = f"""
  SELECT t.id AS audit_id, coalesce(g.arm_id::text, t.arm_id) AS arm_id
  FROM aged_fill_gaps g
  FULL JOIN (
    SELECT max(l.id) AS id, l.details ->> 'arm' AS arm_id, {_TOLD_GAP}
    FROM audit_log l WHERE l.action = 'age' AND l.details ? 'gap' GROUP BY 2) t
  ON t.arm_id = g.arm_id::text
  -- An arm without such trades has no row.
  WHERE (coalesce(g.n, 0), coalesce(g.total, 0), coalesce(g.squares, 0))
        IS DISTINCT FROM (coalesce(t.n, 0), coalesce(t.total, 0), coalesce(t.squares, 0))
  ORDER BY 2
"""  # noqa: S608 - names are ours


_STORED_PAPER = ", ".join(f"d.{name}" for name in PaperSums.__slots__)
_TOLD_PAPER = ", ".join(f"t.{name}" for name in PaperSums.__slots__)
_CHANGED_PAPER = f"""
  SELECT max(t.id) AS audit_id, coalesce(d.arm_id::text, t.arm_id) AS arm_id
  FROM aged_paper_days d
  FULL JOIN (
    SELECT max(l.id) AS id, x ->> 0 AS arm_id, x ->> 1 AS day, {_summed(PaperSums.__slots__)}
    FROM audit_log l CROSS JOIN jsonb_array_elements(
      CASE jsonb_typeof(l.details -> 'paper') WHEN 'array' THEN l.details -> 'paper'
           ELSE '[]' END) x
    WHERE l.action = 'age' GROUP BY 2, 3) t
  ON t.arm_id = d.arm_id::text AND t.day = to_char(d.day, 'YYYY-MM-DD')
  WHERE ({_STORED_PAPER}) IS DISTINCT FROM ({_TOLD_PAPER})
  GROUP BY 2 ORDER BY 2
"""  # noqa: S608 - names are ours


_CHANGED_EXPLORED = f"""
  SELECT t.id AS audit_id, coalesce(x.arm_id::text, t.arm_id) AS arm_id
  FROM aged_explored x
  FULL JOIN (
    SELECT max(l.id) AS id, l.details ->> 'arm' AS arm_id,
           {_summed_in("explored", _TOLD)}
    FROM audit_log l WHERE l.action = 'age' AND l.details ? 'explored' GROUP BY 2) t
  ON t.arm_id = x.arm_id::text
  -- An arm that was never charged has no row.
  WHERE (coalesce(x.n_told, 0), coalesce(x.released, 0), coalesce(x.spent, 0))
        IS DISTINCT FROM (coalesce(t.n_told, 0), coalesce(t.released, 0), coalesce(t.spent, 0))
  ORDER BY 2
"""  # noqa: S608 - names are ours


def changed(connection: Connection) -> Generator[ChangedBase]:
    """Return every base that was changed behind the audit log, or what is beside it, streamed."""
    for statement in (
        _CHANGED,
        _CHANGED_DAYS,
        _CHANGED_COHORTS.format(table="aged_cohorts", told="cohorts"),
        _CHANGED_COHORTS.format(table="aged_paired_cohorts", told="pairs"),
        _CHANGED_GAPS,
        _CHANGED_PAPER,
        _CHANGED_EXPLORED,
    ):
        for found in streamed(connection, statement):
            yield ChangedBase(**found)
