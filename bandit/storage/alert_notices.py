"""Alerts that were heard: each notice once, and how often any was."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from bandit.core.alert_actions import (
    AlertResult,
    AlertStatus,
    KnownNotice,
    Notice,
    NoticeKey,
    kept_text,
)
from bandit.storage.engine import rows, run


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardNotice:
    """A notice, what was done about it, and the decision that did it, where an arm was stopped."""

    notice: Notice
    result: AlertResult
    decision_id: int | None


def known(connection: Connection, keys: Collection[NoticeKey]) -> dict[NoticeKey, KnownNotice]:
    """Return which of these notices were heard before."""
    found = rows(
        connection,
        """
        SELECT n.fingerprint, n.starts_at, n.status, n.received_at, n.result
        FROM alert_notices n
        JOIN unnest(CAST(:fingerprints AS text[]), CAST(:moments AS timestamptz[]),
                    CAST(:statuses AS text[])) AS k (fingerprint, starts_at, status)
          ON (n.fingerprint, n.starts_at, n.status) = (k.fingerprint, k.starts_at, k.status)
        """,
        fingerprints=[key.fingerprint for key in keys],
        moments=[key.starts_at for key in keys],
        statuses=[key.status.value for key in keys],
    )
    return {
        NoticeKey(row["fingerprint"], row["starts_at"], AlertStatus(row["status"])): KnownNotice(
            received_at=row["received_at"], result=AlertResult(row["result"])
        )
        for row in found
    }


def append(
    connection: Connection, heard: Sequence[HeardNotice], *, receiver: str, now: datetime
) -> None:
    """Keep notices; of one that another session has kept meanwhile, that one's row stands.

    Two sessions keep the same notices in the same order: neither waits for the other in a circle.
    """
    ordered = sorted(heard, key=lambda one: one.notice.key)
    run(
        connection,
        """
        INSERT INTO alert_notices (received_at, fingerprint, starts_at, status, alertname,
                                   experiment, policy, action, receiver, result, decision_id)
        SELECT :now, n.fingerprint, n.starts_at, n.status, n.alertname, n.experiment, n.policy,
               n.action, :receiver, n.result, n.decision_id
        FROM unnest(CAST(:fingerprints AS text[]), CAST(:moments AS timestamptz[]),
                    CAST(:statuses AS text[]), CAST(:alertnames AS text[]),
                    CAST(:experiments AS text[]), CAST(:policies AS text[]),
                    CAST(:actions AS text[]), CAST(:results AS text[]),
                    CAST(:decision_ids AS bigint[]))
          WITH ORDINALITY AS n (fingerprint, starts_at, status, alertname, experiment, policy,
                                action, result, decision_id, place)
        ORDER BY n.place
        ON CONFLICT ON CONSTRAINT heard_once DO NOTHING
        """,
        now=now,
        receiver=kept_text(receiver),
        fingerprints=[one.notice.fingerprint for one in ordered],
        moments=[one.notice.starts_at for one in ordered],
        statuses=[one.notice.status.value for one in ordered],
        alertnames=[kept_text(one.notice.alertname) for one in ordered],
        experiments=[kept_text(one.notice.experiment) for one in ordered],
        policies=[kept_text(one.notice.policy) for one in ordered],
        actions=[kept_text(one.notice.action) for one in ordered],
        results=[one.result.value for one in ordered],
        decision_ids=[one.decision_id for one in ordered],
    )


def count(connection: Connection, more: Mapping[AlertResult, int]) -> None:
    """Count so many more of each result."""
    told = sorted((result.value, n) for result, n in more.items() if n)
    run(
        connection,
        """
        INSERT INTO alert_counts AS c (result, n)
        SELECT * FROM unnest(CAST(:results AS text[]), CAST(:counts AS bigint[]))
        ON CONFLICT (result) DO UPDATE SET n = c.n + excluded.n
        """,
        results=[result for result, _ in told],
        counts=[n for _, n in told],
    )


def counts(connection: Connection) -> dict[AlertResult, int]:
    """Return how often each result was counted, those that never were included."""
    found = {row["result"]: row["n"] for row in rows(connection, "SELECT * FROM alert_counts")}
    return {result: int(found.get(result.value, 0)) for result in AlertResult}
