"""Evidence: the terms bets are laid on, and what they have won, by the day of the decision."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
from sqlalchemy import Connection

from bandit.core.cohorts import Cohort, CohortSums
from bandit.core.evidence import BETS, Earned, Tally, Terms
from bandit.storage.engine import rows, run, streamed, uuids

CohortTable = Literal["evidence_cohorts", "aged_cohorts", "paired_cohorts", "aged_paired_cohorts"]
"""Cohorts of draws and of pairs, and of each the part whose outcomes have left."""


def _summed(column: str, count: int) -> str:
    """Return an array's sums by place, each a term of a statement."""
    return ", ".join(f"coalesce(sum({column}[{i}]), 0)" for i in range(1, count + 1))


def _as_doubles(column: str, places: range) -> str:
    """Return the nearest double to each of an array's numbers, as bytes in a row."""
    return " || ".join(f"float8send(CAST({column}[{i}] AS double precision))" for i in places)


# Whole numbers as text: a night reads years of them, and needs no decimal of each.
_TALLY = """n_challenger, n_champion, array_to_string(scores, ',') AS scores,
  array_to_string(wealth, ',') AS wealth"""


class Draw(NamedTuple):
    """An outcome of a decision that chance took, as evidence sees it; `result` is its return."""

    arm_id: int
    instrument: str
    decided_at: datetime
    version: int
    result: float


class CohortKey(NamedTuple):
    """Two arms and the UTC day on which one of them was chosen."""

    arm_id: int
    champion_id: int
    day: date


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedTerms:
    """Terms, and from when on decisions are judged by them."""

    fixed_at: datetime
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionShares:
    """An allocation by arm: each one's parts per million, and who was the champion."""

    champion_id: int
    ppm: Mapping[int, int]


def fix_terms(
    connection: Connection, experiment_id: int, terms: Terms, *, fixed_at: datetime
) -> None:
    """Judge the decisions of an experiment by these terms from then on."""
    run(
        connection,
        """
        INSERT INTO evidence_terms (experiment_id, fixed_at, unit, units, baseline, profit_factor)
        VALUES (:experiment_id, :fixed_at, :unit, CAST(:units AS jsonb), :baseline, :profit_factor)
        ON CONFLICT DO NOTHING
        """,
        experiment_id=experiment_id,
        fixed_at=fixed_at,
        unit=terms.unit,
        units=msgspec.json.encode(dict(terms.units)).decode(),
        baseline=terms.baseline,
        profit_factor=terms.profit_factor,
    )


def earned(connection: Connection, arm_id: int) -> dict[str, Earned]:
    """Return what an arm's trades have earned, by instrument."""
    found = rows(
        connection,
        "SELECT instrument, sum(n_trades)::bigint AS n, sum(return_gain)::double precision AS gain,"
        " sum(return_loss)::double precision AS loss FROM arm_days WHERE arm_id = :arm_id"
        " GROUP BY 1 ORDER BY 1",
        arm_id=arm_id,
    )
    return {row.pop("instrument"): Earned(**row) for row in found}


def terms_between(
    connection: Connection, experiment_id: int, *, first: datetime, last: datetime
) -> list[FixedTerms]:
    """Return the terms that decisions of this time are judged by, oldest first."""
    found = rows(
        connection,
        """
        SELECT fixed_at, unit, units, baseline, profit_factor FROM evidence_terms
        WHERE experiment_id = :id AND fixed_at <= :last AND fixed_at >= coalesce((
          SELECT max(fixed_at) FROM evidence_terms WHERE experiment_id = :id AND fixed_at <= :first
        ), :first) ORDER BY fixed_at
        """,
        id=experiment_id,
        first=first,
        last=last,
    )
    return [FixedTerms(fixed_at=row.pop("fixed_at"), terms=Terms(**row)) for row in found]


def in_force(fixed: Sequence[FixedTerms], at: datetime) -> int | None:
    """Return the place of the terms that a decision is judged by; None before there were any."""
    place = bisect_right(fixed, at, key=lambda terms: terms.fixed_at) - 1
    return place if place >= 0 else None


def shares(
    connection: Connection, experiment_id: int, versions: Iterable[int]
) -> dict[int, VersionShares]:
    """Return what each arm held in these versions of an experiment's allocation."""
    found = rows(
        connection,
        """
        SELECT v.version, v.ppm, v.champion_index,
               (SELECT array_agg(a.id ORDER BY p.place) FROM unnest(v.policy_ids)
                  WITH ORDINALITY p(policy_id, place)
                JOIN arms a ON a.experiment_id = v.experiment_id AND a.policy_id = p.policy_id)
                 AS arm_ids
        FROM allocations v WHERE v.experiment_id = :id AND v.version = ANY(:versions)
        """,
        id=experiment_id,
        versions=sorted(versions),
    )
    return {
        row["version"]: VersionShares(
            champion_id=row["arm_ids"][row["champion_index"] - 1],
            ppm=dict(zip(row["arm_ids"], row["ppm"], strict=True)),
        )
        for row in found
    }


def add(
    connection: Connection,
    changes: Mapping[CohortKey, Tally],
    *,
    table: CohortTable = "evidence_cohorts",
) -> None:
    """Count decisions into their cohorts; rows are locked in the order of their keys."""
    if not changes:
        return
    told = [_told(key, tally) for key, tally in sorted(changes.items())]
    run(
        connection,
        f"""
        INSERT INTO {table} AS c
          (arm_id, champion_id, day, n_challenger, n_champion, scores, wealth)
        SELECT x.arm_id, x.champion_id, x.day, x.n_challenger, x.n_champion, x.scores, x.wealth
        FROM json_to_recordset(CAST(:told AS json)) AS x(
          arm_id bigint, champion_id bigint, day date, n_challenger bigint, n_champion bigint,
          scores numeric[], wealth numeric[])
        ORDER BY 1, 2, 3
        ON CONFLICT (arm_id, champion_id, day) DO UPDATE
        SET n_challenger = c.n_challenger + excluded.n_challenger,
            n_champion = c.n_champion + excluded.n_champion,
            scores = added(c.scores, excluded.scores), wealth = added(c.wealth, excluded.wealth)
        """,  # noqa: S608 - a constant
        told=msgspec.json.encode(told).decode(),
    )


def cohorts(
    connection: Connection,
    *,
    arm_id: int,
    champion_id: int,
    table: CohortTable = "evidence_cohorts",
) -> list[Cohort]:
    """Return every cohort of two arms, in the order of their days."""
    found = rows(
        connection,
        f"SELECT day, {_TALLY} FROM {table} "  # noqa: S608 - a constant
        "WHERE arm_id = :arm_id AND champion_id = :champion_id ORDER BY day",
        arm_id=arm_id,
        champion_id=champion_id,
    )
    return [Cohort(day=row["day"], tally=_tally(row)) for row in found]


def sums(
    connection: Connection,
    arm_ids: Iterable[int],
    *,
    champion_id: int,
    after: date | None,
    until: date,
    hold_outs: Iterable[int],
) -> dict[int, CohortSums]:
    """Return the sums of the cohorts of arms beside one champion, of days after one until another.

    Of an arm without a cohort after the first there is nothing; cohorts of days to come are not
    in the sums. Bets for an arm are read by day of `hold_outs` alone: of others nobody asks for
    them. Added up by the ledger: a night reads years of cohorts of every arm.
    """
    found = rows(
        connection,
        _SUMS,
        arm_ids=list(arm_ids),
        champion_id=champion_id,
        after=after or date.min,
        until=until,
        hold_outs=list(hold_outs),
    )
    return {row["arm_id"]: _sums(row) for row in found}


def paired_totals(
    connection: Connection,
    arm_ids: Iterable[int],
    *,
    champion_id: int,
    after: date | None,
    until: date,
) -> dict[int, Tally]:
    """Return what the paired cohorts of the same arms and days come to, as `sums` does."""
    found = rows(
        connection,
        _PAIRED_TOTALS,
        arm_ids=list(arm_ids),
        champion_id=champion_id,
        after=after or date.min,
        until=until,
    )
    return {row["arm_id"]: _tally(row) for row in found}


def tallies(
    connection: Connection,
    arm_id: int,
    *,
    table: CohortTable = "evidence_cohorts",
) -> dict[CohortKey, Tally]:
    """Return every cohort in which an arm is the challenger."""
    found = rows(
        connection,
        f"SELECT arm_id, champion_id, day, {_TALLY} FROM {table} "  # noqa: S608 - a constant
        "WHERE arm_id = :arm_id",
        arm_id=arm_id,
    )
    return {CohortKey(row["arm_id"], row["champion_id"], row["day"]): _tally(row) for row in found}


def replace(
    connection: Connection,
    arm_id: int,
    cohorts: Mapping[CohortKey, Tally],
    *,
    table: CohortTable = "evidence_cohorts",
) -> None:
    """Write every cohort anew in which an arm is the challenger."""
    run(connection, f"DELETE FROM {table} WHERE arm_id = :arm_id", arm_id=arm_id)  # noqa: S608 - a constant
    add(connection, cohorts, table=table)


def opponents(connection: Connection, arm_id: int) -> list[int]:
    """Return the arms that were champion in a version in which this arm had a share."""
    found = rows(
        connection,
        """
        SELECT DISTINCT c.id FROM arms a
        JOIN allocations v ON v.experiment_id = a.experiment_id
        JOIN arms c ON c.experiment_id = v.experiment_id
          AND c.policy_id = v.policy_ids[v.champion_index]
        WHERE a.id = :arm_id AND c.id <> a.id
          AND v.ppm[array_position(v.policy_ids, a.policy_id)] > 0
        ORDER BY 1
        """,
        arm_id=arm_id,
    )
    return [row["id"] for row in found]


def draws(connection: Connection, arm_ids: Sequence[int]) -> Iterator[Draw]:
    """Stream the draws of arms whose outcomes are still here, oldest first."""
    condition = "o.arm_id = ANY(:arm_ids) ORDER BY s.decided_at"
    found = streamed(connection, _DRAWS.format(condition=condition), arm_ids=list(arm_ids))
    return (Draw(**row) for row in found)


def draws_of(connection: Connection, assignments: Iterable[UUID]) -> list[Draw]:
    """Return the draws among these assignments that have an outcome."""
    condition = "o.assignment_id = ANY(CAST(:ids AS uuid[]))"
    found = rows(connection, _DRAWS.format(condition=condition), ids=uuids(assignments))
    return [Draw(**row) for row in found]


_DRAWS = """
  SELECT o.arm_id, o.instrument, s.decided_at, s.allocation_version AS version,
         o.return_ratio::double precision AS result
  FROM current_outcomes o JOIN assignments s ON s.id = o.assignment_id
  WHERE s.mode = 'live' AND s.position_id IS NULL AND NOT s.is_fallback AND s.propensity < 1
    AND {condition}
"""


def _each_of(columns: str, table: str) -> str:
    """Return a statement that gives columns of the cohorts of each arm that has any."""
    return f"""
      SELECT a.id AS arm_id, c.* FROM unnest(CAST(:arm_ids AS bigint[])) AS a(id)
      CROSS JOIN LATERAL (
        SELECT coalesce(sum(n_challenger), 0)::bigint AS n_challenger,
               coalesce(sum(n_champion), 0)::bigint AS n_champion,
               array_to_string(ARRAY[{_summed("scores", 2)}], ',') AS scores,
               array_to_string(ARRAY[{_summed("wealth", 4 * len(BETS))}], ',') AS wealth
               {columns}
        FROM {table} WHERE arm_id = a.id AND champion_id = :champion_id
          AND day > :after AND day <= :until) AS c
      WHERE EXISTS (SELECT FROM {table} WHERE arm_id = a.id AND champion_id = :champion_id
                      AND day > :after)
    """  # noqa: S608 - constants


_PAIRED_TOTALS = _each_of("", "paired_cohorts")
_FOR, _AGAINST = range(1, len(BETS) + 1), range(len(BETS) + 1, 2 * len(BETS) + 1)
_SUMS = _each_of(
    f"""
      , count(*) FILTER (WHERE n_challenger > 0) AS days,
      string_agg((n_challenger + n_champion)::text, ',' ORDER BY day) AS n_by_day,
      string_agg(scores[1]::text, ',' ORDER BY day) AS scores_by_day,
      string_agg({_as_doubles("wealth", _FOR)}, '' ORDER BY day)
        FILTER (WHERE n_challenger + n_champion > 0 AND a.id = ANY(:hold_outs)) AS bets_for,
      string_agg({_as_doubles("wealth", _AGAINST)}, '' ORDER BY day)
        FILTER (WHERE n_challenger + n_champion > 0) AS bets_against
    """,
    "evidence_cohorts",
)


def flat(tally: Tally) -> tuple[int, ...]:
    """Return all that a tally counts, in the order of its columns."""
    return (tally.n_challenger, tally.n_champion, *tally.scores, *tally.wealth)


def _told(key: CohortKey, tally: Tally) -> dict[str, Any]:
    return {
        **key._asdict(),
        "n_challenger": tally.n_challenger,
        "n_champion": tally.n_champion,
        "scores": tally.scores,
        "wealth": tally.wealth,
    }


def _tally(row: Mapping[str, Any]) -> Tally:
    return Tally(
        n_challenger=row["n_challenger"],
        n_champion=row["n_champion"],
        scores=_integers(row["scores"]),
        wealth=_integers(row["wealth"]),
    )


def _sums(row: Mapping[str, Any]) -> CohortSums:
    by_day = zip(_integers(row["n_by_day"]), _integers(row["scores_by_day"]), strict=True)
    filled = [(n, score) for n, score in by_day if n]
    return CohortSums(
        total=_tally(row),
        days=row["days"],
        n=list(accumulate((n for n, _ in filled), initial=0)),
        scores=list(accumulate((score for _, score in filled), initial=0)),
        bets_for=_floats(row["bets_for"]),
        bets_against=_floats(row["bets_against"]),
    )


def _floats(sent: bytes | None) -> array[float]:
    """Return the doubles that `float8send` wrote."""
    return array("d", np.frombuffer(sent or b"", ">f8").astype(np.float64).tobytes())


def _integers(values: str | None) -> tuple[int, ...]:
    return tuple(map(int, values.split(","))) if values else ()
