"""A superuser changes assignments and outcomes; the verifier names the batch."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ledger import NOON, assign, closed, open_btc, record_all
from sqlalchemy import Engine, text

from bandit.core.outcomes import declined
from bandit.service import auditing

CHANGES = {
    "propensity": "UPDATE assignments SET propensity = propensity / 2 WHERE unit_id = 'b'",
    "arm": "UPDATE assignments SET arm_id = 3 - arm_id WHERE unit_id = 'b'",
    "time": "UPDATE assignments SET decided_at = decided_at - interval '1 microsecond'"
    " WHERE unit_id = 'b'",
    "position": "UPDATE assignments SET position_id = (SELECT id FROM assignments"
    " WHERE unit_id = 'a') WHERE unit_id = 'b'",
    "context": "UPDATE assignments SET context = '{}' WHERE unit_id = 'b'",
    "pnl": "UPDATE outcomes SET pnl = pnl + 0.00000001 WHERE unit_id = 'a'",
    "return": "UPDATE outcomes SET return_ratio = return_ratio * 2 WHERE unit_id = 'a'",
    "fees": "UPDATE outcomes SET fees = 0 WHERE unit_id = 'a'",
    "closed": "UPDATE outcomes SET closed_at = closed_at + interval '1 s' WHERE unit_id = 'a'",
    "attribution": "UPDATE outcomes SET arm_id = 3 - arm_id WHERE unit_id = 'a'",
    "declined": "UPDATE outcomes SET no_trade = true, pnl = 0, return_ratio = 0,"
    " closed_at = opened_at WHERE unit_id = 'a'",
    "hash": "UPDATE outcomes SET body_hash = sha256('') WHERE unit_id = 'a'",
    "deleted": "DELETE FROM outcomes WHERE unit_id = 'a'",
    "deleted assignment": "DELETE FROM assignments WHERE unit_id = 'c'",
    "moved": "UPDATE assignments SET audit_id = 9999 WHERE unit_id = 'c'",
}


@pytest.fixture
def stored(engine: Engine) -> Engine:
    """A ledger with two batches of assignments and two of outcomes, sealed."""
    open_btc(engine)
    made = assign(engine, ["a", "b", "c"])
    assign(engine, ["d"])
    later = NOON + timedelta(days=1)
    record_all(engine, [closed(made[0], "0.001"), closed(made[1], "-0.002")], now=later)
    by_unit = {a.unit_id: a for a in assign(engine, ["d"])}
    record_all(engine, [declined(by_unit["d"].id)], now=later)
    auditing.seal(engine, now=later)
    return engine


def findings(engine: Engine) -> list[tuple[str, str]]:
    report = auditing.verify(engine, [])
    return [
        (finding.kind.value, finding.message)
        for finding in report.findings
        if finding.kind != "unanchored"
    ]


def test_untouched_batches_are_what_was_stored(stored: Engine) -> None:
    assert findings(stored) == []


def test_settings_of_a_session_change_nothing(stored: Engine) -> None:
    with stored.begin() as connection:
        for setting in ("timezone TO 'Asia/Tokyo'", "extra_float_digits TO 0"):
            database = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {}', current_database());"
            connection.execute(text(database.replace("{}", setting.replace("'", "''")) + " END $$"))
    stored.dispose()
    assert findings(stored) == []


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_found_in_its_batch(stored: Engine, change: str) -> None:
    with stored.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        changed = connection.execute(text(CHANGES[change]))
        assert changed.rowcount == 1
    table = "outcomes" if "outcomes" in CHANGES[change] else "assignments"
    found = findings(stored)
    assert {kind for kind, _ in found} == {"batch_changed"}
    assert table in found[0][1]
