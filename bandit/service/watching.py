"""Let monitors tell that they see, and end; bots of an experiment go by the newest pulse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine

from bandit.core.model import checked_instant, checked_text
from bandit.core.watch import Pulse, checked_interval
from bandit.storage import audit, pulses
from bandit.storage.engine import snapshot, transaction

STARTED = "monitor_started"
ENDED = "monitor_ended"


def pulse(
    engine: Engine,
    experiments: Sequence[str],
    *,
    who: str,
    interval_seconds: float,
    is_first: bool,
    now: datetime,
    actor: str,
) -> None:
    """Tell that the monitor of `who` has seen these experiments, and looks again in an interval.

    Audited where it `is_first` of its process, and where nobody was expected: from then on bots
    stop by themselves once it is silent. Of several monitors of an experiment the newest counts.
    """
    now = checked_instant(now, field="now")
    details = {"who": who, "interval_seconds": checked_interval(interval_seconds)}
    with transaction(engine) as connection:
        for name in sorted(experiments):
            known = pulses.locked(connection, name)
            pulses.write(connection, name, who=who, interval_seconds=interval_seconds)
            if is_first or known is None or known.is_ended:
                _audit(connection, STARTED, name, details, now=now, actor=actor)


def end(engine: Engine, *, who: str, now: datetime, actor: str) -> list[str]:
    """Expect nothing of the monitor of `who` any more; return the experiments it was ended for.

    Of an experiment that another monitor has seen since, the other one is still expected.
    """
    now = checked_instant(now, field="now")
    with transaction(engine) as connection:
        names = pulses.end(connection, who=who)
        for name in names:
            _audit(connection, ENDED, name, {"who": who}, now=now, actor=actor)
    return names


def newest(engine: Engine) -> list[Pulse]:
    """Return the newest pulse of each experiment that ever had a monitor."""
    with snapshot(engine) as connection:
        return pulses.every(connection)


def _audit(
    connection: Connection,
    action: str,
    experiment: str,
    details: dict[str, object],
    *,
    now: datetime,
    actor: str,
) -> None:
    audit.append(
        connection,
        now=now,
        actor=checked_text(actor, field="actor", length_max=200),
        action=action,
        subject=experiment,
        details=details,
    )
