"""Experiments and their arms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bandit.core.errors import UnknownName
from bandit.core.limits import ArmPlace, Limits
from bandit.core.model import (
    ArmMode,
    ArmRole,
    ArmStatus,
    Experiment,
    PolicyKind,
    PolicyName,
    PolicySha,
    Ppm,
    Profile,
    Promoter,
    Rung,
    Strategy,
    checked_amount,
)
from bandit.core.reading import ChecklistRule, Rules
from bandit.core.sizing import Sizing
from bandit.storage.engine import one, rows, run


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRecord:
    """An arm as the ledger holds it, its policy's names beside it."""

    id: int
    policy_id: int
    policy_sha: PolicySha
    policy_kind: PolicyKind
    place: ArmPlace
    status_reason: str
    joined_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """An experiment as the ledger holds it, with every arm in the order of policy ids."""

    id: int
    experiment: Experiment
    salt: bytes
    epoch: int
    limits: Limits
    rules: Rules
    opened_at: datetime
    is_killed: bool
    arms: tuple[ArmRecord, ...]

    @property
    def night_promotes(self) -> bool:
        """Whether a night may make an eligible arm the champion; else only a person does."""
        guarded = self.experiment.profile is Profile.GUARDED
        return guarded and self.rules.promote is Promoter.NIGHT

    @property
    def kept_arms(self) -> tuple[ArmRecord, ...]:
        """The arms that are not retired: those an allocation gives parts to."""
        return tuple(arm for arm in self.arms if arm.place.status is not ArmStatus.RETIRED)

    @property
    def places(self) -> list[ArmPlace]:
        """What the limits need to know of every arm that is not retired."""
        return [arm.place for arm in self.kept_arms]

    @property
    def sizing(self) -> Sizing | None:
        """The sizing limits as bots are told of them; None for an experiment without any."""
        rule = self.rules.sizing
        return None if rule is None else rule.sizing(self.experiment.equity_fraction)

    def arm_of(self, policy: PolicyName) -> ArmRecord:
        """Return the arm of `policy`, or raise `UnknownName` with the arms there are."""
        for arm in self.arms:
            if arm.place.policy == policy:
                return arm
        known = [arm.place.policy for arm in self.arms]
        raise UnknownName(
            kind=f"arm of experiment {self.experiment.name}", name=policy, known=known
        )


def insert(
    connection: Connection,
    experiment: Experiment,
    *,
    champion_id: int,
    account_id: int,
    salt: bytes,
    limits: Limits,
    rules: Rules,
    now: datetime,
) -> int | None:
    """Store a new experiment and return its id; None when the name is taken."""
    inserted = one(
        connection,
        """
        INSERT INTO experiments (
          name, champion_id, account_id, capital, currency, equity_fraction, profile, strategy,
          decision_seconds_valid, salt, epoch, champion_floor_ppm, champion_floor_proven_ppm,
          proven_trades, unproven_cap_ppm, arm_minimum_ppm, start_ppm, step_up, rules, opened_at)
        VALUES (
          :name, :champion_id, :account_id, :capital, :currency, :equity_fraction, :profile,
          :strategy, :decision_seconds_valid, :salt, 0, :champion_floor_ppm,
          :champion_floor_proven_ppm, :proven_trades, :unproven_cap_ppm, :arm_minimum_ppm,
          :start_ppm, :step_up, CAST(:rules AS jsonb), :now)
        ON CONFLICT (name) DO NOTHING RETURNING id
        """,
        name=experiment.name,
        champion_id=champion_id,
        account_id=account_id,
        capital=checked_amount(experiment.capital, field="capital"),
        currency=experiment.currency,
        equity_fraction=experiment.equity_fraction,
        profile=experiment.profile.value,
        strategy=experiment.strategy.value,
        decision_seconds_valid=experiment.decision_seconds_valid,
        salt=salt,
        rules=json.dumps(asdict(rules)),
        now=now,
        **asdict(limits),
    )
    return None if inserted is None else int(inserted["id"])


def insert_arm(
    connection: Connection,
    *,
    experiment_id: int,
    policy_id: int,
    mode: ArmMode,
    reason: str,
    now: datetime,
) -> bool:
    """Let a policy join an experiment without traffic; False when it is there already."""
    inserted = one(
        connection,
        """
        WITH arm AS (
          INSERT INTO arms (experiment_id, policy_id, status, status_reason, mode,
                            traffic_allocation, joined_at, rung)
          VALUES (:experiment_id, :policy_id, 'active', :reason, :mode, 0, :now, 'unproven')
          ON CONFLICT (experiment_id, policy_id) DO NOTHING RETURNING id)
        INSERT INTO arm_statistics (
          arm_id, n_outcomes, n_trades, n_wins, n_losses, n_expired, n_unclaimed, gross_profit,
          gross_loss, fees, return_gain, return_loss, return_squares, pf_short_state,
          dd_short_percent, pf_long_state, dd_long_percent, equity, equity_peak, drawdown_max,
          losing_streak, losing_streak_max, winning_streak, winning_streak_max)
        SELECT id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'no_trades', 0, 'no_trades', 0, 1, 1, 0,
               0, 0, 0, 0
        FROM arm RETURNING arm_id
        """,
        experiment_id=experiment_id,
        policy_id=policy_id,
        mode=mode.value,
        reason=reason,
        now=now,
    )
    return inserted is not None


def set_status(connection: Connection, arm_id: int, status: ArmStatus, *, reason: str) -> None:
    """Move an arm to `status`; the database refuses unlawful ways."""
    run(
        connection,
        "UPDATE arms SET status = :status, status_reason = :reason WHERE id = :id",
        id=arm_id,
        status=status.value,
        reason=reason,
    )


def set_rungs(connection: Connection, experiment_id: int, rungs: Mapping[PolicyName, Rung]) -> None:
    """Place arms of an experiment on their rungs; the limits read them."""
    run(
        connection,
        "UPDATE arms a SET rung = x.rung FROM policies p,"
        " json_to_recordset(CAST(:rungs AS json)) AS x(policy text, rung text)"
        " WHERE a.experiment_id = :id AND p.id = a.policy_id AND p.name = x.policy"
        " AND a.rung <> x.rung",
        id=experiment_id,
        rungs=json.dumps([{"policy": policy, "rung": rung} for policy, rung in rungs.items()]),
    )


def epoch_of(connection: Connection, experiment_id: int) -> int:
    """Return the experiment's epoch as this transaction sees it."""
    found = one(connection, "SELECT epoch FROM experiments WHERE id = :id", id=experiment_id)
    assert found is not None
    return int(found["epoch"])


def ids_of(connection: Connection, name: str) -> tuple[int, int]:
    """Return the ids of an experiment and of its account, or raise `UnknownName`."""
    statement = "SELECT id, account_id FROM experiments WHERE name = :name"
    found = one(connection, statement, name=name)
    if found is None:
        raise UnknownName(kind="experiment", name=name, known=names(connection))
    return int(found["id"]), int(found["account_id"])


def arm_ids(connection: Connection, experiment_id: int) -> list[int]:
    """Return the arms of an experiment, retired ones too."""
    statement = "SELECT id FROM arms WHERE experiment_id = :id ORDER BY id"
    return [row["id"] for row in rows(connection, statement, id=experiment_id)]


def names(connection: Connection) -> list[str]:
    """Return the names of all experiments, oldest first."""
    return [row["name"] for row in rows(connection, "SELECT name FROM experiments ORDER BY id")]


def load(connection: Connection, name: str) -> ExperimentRecord:
    """Return the experiment of this name with its arms, or raise `UnknownName`."""
    row = one(
        connection,
        "SELECT e.*, p.name AS champion, a.name AS account, a.is_killed FROM experiments e "
        "JOIN policies p ON p.id = e.champion_id "
        "JOIN accounts a ON a.id = e.account_id WHERE e.name = :name",
        name=name,
    )
    if row is None:
        raise UnknownName(kind="experiment", name=name, known=names(connection))
    return _record(row, _arms(connection, row))


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedArm:
    """A challenger the checklist may still stop, with the numbers stored of its windows.

    Of one that `began_anew` they do not decide: it is judged on its trades since it was resumed,
    or replaced as the champion.
    """

    id: int
    experiment: str
    experiment_id: int
    rule: ChecklistRule
    n_trades: int
    pf_short: float | None
    pf_short_state: str
    dd_long_percent: float
    began_anew: bool


def watched(connection: Connection, arm_ids: Sequence[int]) -> list[WatchedArm]:
    """Return the arms among `arm_ids` that the checklist may stop, by experiment and arm.

    Champions carry what challengers give up, and `observe` stops nobody.
    """
    found = rows(
        connection,
        """
        SELECT a.id, e.name, e.id AS experiment_id, e.rules, s.n_trades, s.pf_short,
               s.pf_short_state, s.dd_long_percent,
               EXISTS (SELECT FROM decisions d WHERE d.experiment_id = e.id AND d.kind = 'RESUME'
                       AND d.inputs ->> 'policy' = p.name)
               OR EXISTS (SELECT FROM decisions d WHERE d.experiment_id = e.id
                          AND d.kind = 'PROMOTE' AND d.inputs ->> 'demoted' = p.name) AS began_anew
        FROM arms a
        JOIN experiments e ON e.id = a.experiment_id
        JOIN policies p ON p.id = a.policy_id
        JOIN arm_statistics s ON s.arm_id = a.id
        WHERE a.id = ANY(:ids) AND a.policy_id <> e.champion_id
          AND a.status IN ('active', 'throttled') AND e.profile <> 'observe'
        ORDER BY e.id, a.id
        """,
        ids=list(arm_ids),
    )
    return [
        WatchedArm(
            id=row["id"],
            experiment=row["name"],
            experiment_id=row["experiment_id"],
            rule=Rules.from_json(row["rules"]).checklist,
            n_trades=row["n_trades"],
            pf_short=row["pf_short"],
            pf_short_state=row["pf_short_state"],
            dd_long_percent=row["dd_long_percent"],
            began_anew=row["began_anew"],
        )
        for row in found
    ]


def with_policy(connection: Connection, policy_id: int) -> list[str]:
    """Return the names of the experiments in which the policy has an arm."""
    found = rows(
        connection,
        "SELECT e.name FROM experiments e JOIN arms a ON a.experiment_id = e.id "
        "WHERE a.policy_id = :policy_id ORDER BY e.id",
        policy_id=policy_id,
    )
    return [row["name"] for row in found]


def _arms(connection: Connection, experiment: dict[str, Any]) -> Sequence[ArmRecord]:
    found = rows(
        connection,
        """
        SELECT a.id, a.policy_id, p.name, p.sha, p.kind, a.status, a.status_reason, a.mode,
               round(a.traffic_allocation * 1000000)::integer AS ppm, a.joined_at, a.rung,
               s.n_trades
        FROM arms a
        JOIN policies p ON p.id = a.policy_id
        JOIN arm_statistics s ON s.arm_id = a.id
        WHERE a.experiment_id = :id ORDER BY a.policy_id
        """,
        id=experiment["id"],
    )
    return [_arm(row, champion_id=experiment["champion_id"]) for row in found]


def _arm(row: dict[str, Any], *, champion_id: int) -> ArmRecord:
    is_champion = row["policy_id"] == champion_id
    place = ArmPlace(
        policy=PolicyName(row["name"]),
        role=ArmRole.CHAMPION if is_champion else ArmRole.CHALLENGER,
        status=ArmStatus(row["status"]),
        mode=ArmMode(row["mode"]),
        ppm=Ppm(row["ppm"]),
        trades=row["n_trades"],
        rung=Rung(row["rung"]),
    )
    return ArmRecord(
        id=row["id"],
        policy_id=row["policy_id"],
        policy_sha=PolicySha(row["sha"]),
        policy_kind=PolicyKind(row["kind"]),
        place=place,
        status_reason=row["status_reason"],
        joined_at=row["joined_at"],
    )


def _record(row: dict[str, Any], arms: Sequence[ArmRecord]) -> ExperimentRecord:
    experiment = Experiment(
        name=row["name"],
        champion=PolicyName(row["champion"]),
        capital=row["capital"],
        currency=row["currency"],
        equity_fraction=row["equity_fraction"],
        profile=Profile(row["profile"]),
        strategy=Strategy(row["strategy"]),
        decision_seconds_valid=row["decision_seconds_valid"],
        account=row["account"],
    )
    return ExperimentRecord(
        id=row["id"],
        experiment=experiment,
        salt=bytes(row["salt"]),
        epoch=row["epoch"],
        limits=Limits(**{name: row[name] for name in Limits.__slots__}),
        rules=Rules.from_json(row["rules"]),
        opened_at=row["opened_at"],
        is_killed=row["is_killed"],
        arms=tuple(arms),
    )
