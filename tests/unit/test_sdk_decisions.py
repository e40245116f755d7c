"""What the SDK decides without a socket, a file or a clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from ledger import NOON

from liveops.client import contact as contacts
from liveops.client.breaker import Breaker
from liveops.client.contact import Contact, Standing
from liveops.client.delivery import Fate, Row, delivery, verdicts
from liveops.client.errors import (
    InvalidInput,
    Killed,
    Paused,
    RequestRefused,
    ServiceUnavailable,
    Unreconciled,
)
from liveops.client.flushing import pause_seconds
from liveops.client.protocol import (
    Reply,
    assignment_request,
    checked_key,
    checked_url,
    problem_of,
    refusal_of,
)
from liveops.client.values import Champion, Kind, amount, outcome_fields, ratio

CHAMPION = Champion(policy="prod", policy_sha="aaaaaaaa", epoch=3, decision_seconds_valid=2.0)
OPEN = Contact(standing=Standing.OPEN, known_at=NOON, epoch=3, champion=CHAMPION)
LATER = NOON + timedelta(minutes=1)


def fields(**changed: Any) -> dict[str, object]:
    trade: dict[str, Any] = {
        "pnl": Decimal("12.34"),
        "return_ratio": Decimal("0.0012"),
        "opened_at": NOON,
        "closed_at": LATER,
        "amounts": {"fees": Decimal("0.40"), "size": None},
        "ratios": {"r_multiple": 1.5},
    }
    return outcome_fields(**(trade | changed))


def row(number: int, kind: Kind = Kind.OUTCOME, turn: int = 0) -> Row:
    return Row(id=number, kind=kind, unit_id=None, body=f'{{"n":{number}}}', turn=turn)


def reply(status: int, body: str = "", **values: Any) -> Reply:
    return Reply(status=status, body=body.encode(), **values)


def test_a_trade_is_told_in_the_words_of_the_service() -> None:
    assert fields() == {
        "pnl": "12.34000000",
        "return": 0.0012,
        "opened_at": "2026-03-01T12:00:00+00:00",
        "closed_at": "2026-03-01T12:01:00+00:00",
        "fees": "0.40000000",
        "r_multiple": 1.5,
    }


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"pnl": Decimal("NaN")}, "pnl"),
        ({"pnl": Decimal("0.000000001")}, "pnl"),
        ({"pnl": Decimal(10) ** 16}, "pnl"),
        ({"return_ratio": float("inf")}, "return"),
        ({"return_ratio": -0.0012}, "return"),
        ({"opened_at": NOON.replace(tzinfo=None)}, "opened_at"),
        ({"closed_at": NOON - timedelta(seconds=1)}, "closed_at"),
        ({"ratios": {"worst_excursion": 1000}}, "worst_excursion"),
    ],
)
def test_a_value_that_would_be_refused_is_named_at_once(
    changed: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        fields(**changed)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: {caught.value.rule}")


@pytest.mark.parametrize("value", [12.34, 12, "12.34", True])
def test_money_is_decimal_or_a_type_error_that_names_the_field(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^fees: must be a Decimal, found "):
        fields(amounts={"fees": value})


def test_an_amount_is_exact_whatever_the_context_of_the_bot() -> None:
    from decimal import localcontext

    with localcontext() as narrow:
        narrow.prec = 3
        assert amount(Decimal("1234567890123456.12345678"), field="pnl") == (
            "1234567890123456.12345678"
        )


def test_a_truth_value_is_no_ratio() -> None:
    with pytest.raises(TypeError, match="return: must be a number, found bool"):
        ratio(True, field="return")


@pytest.mark.parametrize(
    "url", ["ftp://host", "http://", "https://me:secret@host", "http://host?key=secret"]
)
def test_an_address_that_is_none_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


def test_a_key_that_cannot_be_sent_is_not_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_key("secret\r\nX-Evil: 1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("context", [{"spread": float("nan")}, {"at": NOON}])
def test_a_context_that_is_no_json_is_refused(context: object) -> None:
    with pytest.raises(InvalidInput, match="context: must be JSON"):
        assignment_request("btc", unit_id="u", instrument="BTCUSD", context=context)


def test_outcomes_travel_together_as_far_as_their_order_allows() -> None:
    rows = [row(1), row(2), row(3, Kind.MARK), row(4)]
    request, taken = delivery("btc", rows)
    assert [r.id for r in taken] == [1, 2]
    assert (request.path, request.body) == ("/v1/outcomes/batch", b'{"n":1}\n{"n":2}\n')
    request, taken = delivery("btc", rows[2:])
    assert (request.path, request.body, len(taken)) == ("/v1/marks", b'[{"n":3}]', 1)


def test_a_row_that_was_put_off_goes_alone() -> None:
    _, taken = delivery("btc", [row(1, turn=1), row(2, turn=1)])
    assert [r.id for r in taken] == [1]
    _, taken = delivery("btc", [row(1), row(2, turn=1)])
    assert [r.id for r in taken] == [1]


def test_every_line_of_a_batch_has_its_own_fate() -> None:
    answer = (
        '{"line": 1, "status": 201}\n'
        '{"line": 2, "status": 409, "problem": {"code": "conflict", "detail": "another body"}}\n'
        '{"line": 3, "status": 200}\n'
        '{"line": 4, "status": 503, "problem": {"code": "ledger_unavailable"}}\n'
    )
    found = verdicts([row(n) for n in range(1, 6)], reply(200, answer))
    assert [v.fate for v in found] == [
        Fate.ACKNOWLEDGED,
        Fate.REFUSED,
        Fate.ACKNOWLEDGED,
        Fate.PUT_OFF,
        Fate.PUT_OFF,  # a line without an answer was not acknowledged
    ]
    assert found[1].problem is not None
    assert (found[1].problem.code, found[1].problem.status) == ("conflict", 409)


@pytest.mark.parametrize(
    ("status", "code", "rows", "fate"),
    [
        (422, "invalid_input", 1, Fate.REFUSED),
        (422, "invalid_input", 2, Fate.PUT_OFF),  # one of them, so each by itself
        (413, "body_too_large", 2, Fate.PUT_OFF),
        (404, "unknown_name", 1, Fate.REFUSED),
        (404, "no_such_route", 1, Fate.KEPT),  # an older service: nothing wrong with the row
        (409, "lock_held_elsewhere", 1, Fate.KEPT),
        (401, "unauthorized", 1, Fate.KEPT),
        (403, "foreign_host", 2, Fate.KEPT),
        (423, "killed", 1, Fate.KEPT),
        (429, "too_many", 1, Fate.KEPT),
        (301, "moved", 1, Fate.KEPT),
        (500, "internal_error", 1, Fate.PUT_OFF),
        (503, "ledger_unavailable", 2, Fate.KEPT),
    ],
)
def test_a_row_is_refused_only_for_what_is_wrong_with_it(
    status: int, code: str, rows: int, fate: Fate
) -> None:
    answer = reply(status, f'{{"code": "{code}", "detail": "no"}}')
    found = verdicts([row(n, Kind.MARK) for n in range(rows)], answer)
    assert [v.fate for v in found] == [fate] * rows


def test_no_answer_keeps_every_row() -> None:
    assert [v.fate for v in verdicts([row(1), row(2)], None)] == [Fate.KEPT] * 2


def test_marks_are_acknowledged_together_or_one_by_one() -> None:
    rows = [row(1, Kind.MARK), row(2, Kind.MARK)]
    assert [v.fate for v in verdicts(rows, reply(200, '{"recorded": 2}'))] == [
        Fate.ACKNOWLEDGED
    ] * 2
    answer = '[{"line": 1, "status": 200}, {"line": 2, "status": 404, "problem": {"code": "x"}}]'
    assert [v.fate for v in verdicts(rows, reply(200, answer))] == [
        Fate.ACKNOWLEDGED,
        Fate.REFUSED,
    ]


def test_a_fallback_is_acknowledged_by_the_assignment_it_became() -> None:
    (found,) = verdicts([row(1, Kind.FALLBACK)], reply(200, "<html>"))
    assert found.fate is Fate.PUT_OFF


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (423, "killed", Killed),
        (423, "paused", Paused),
        (423, "unreconciled", Unreconciled),
        (409, "paused", Paused),
        (422, "invalid_input", RequestRefused),
    ],
)
def test_what_the_service_refuses_has_a_name(
    status: int, code: str, error: type[RequestRefused]
) -> None:
    answer = reply(status, f'{{"code": "{code}", "detail": "why", "field": "f", "rule": "r"}}')
    found = refusal_of(problem_of(answer))
    assert type(found) is error
    assert (str(found), found.code, found.field, found.rule) == ("why", code, "f", "r")


def test_the_champion_stands_in_until_the_limit_and_not_after() -> None:
    assert contacts.fallback_champion(OPEN, silent=900.0, limit_seconds=900.0) == CHAMPION
    with pytest.raises(ServiceUnavailable, match="more than the 900 s"):
        contacts.fallback_champion(OPEN, silent=900.1, limit_seconds=900.0)


@pytest.mark.parametrize(
    ("contact", "error"),
    [
        (replace(OPEN, standing=Standing.KILLED), Killed),
        (replace(OPEN, standing=Standing.PAUSED), Paused),
        (replace(OPEN, standing=Standing.UNRECONCILED), Unreconciled),
        (replace(OPEN, standing=Standing.UNKNOWN), ServiceUnavailable),
        (replace(OPEN, champion=None), ServiceUnavailable),
        (replace(OPEN, epoch=4), ServiceUnavailable),  # the champion may have been rolled back
    ],
)
def test_nobody_stands_in_where_that_is_not_known_to_be_right(
    contact: Contact, error: type[Exception]
) -> None:
    with pytest.raises(error):
        contacts.fallback_champion(contact, silent=0.0, limit_seconds=900.0)


@pytest.mark.parametrize(
    ("now", "observed", "away", "silent"),
    [
        (NOON + timedelta(minutes=10), 1.0, 0.0, 600.0),  # the wall clock saw more: a suspend
        (NOON - timedelta(hours=1), 601.0, 0.0, 601.0),  # set back while running
        (NOON - timedelta(hours=1), 0.0, 600.0, 600.0),  # set back before a restart
        (NOON - timedelta(hours=1), 5.0, 600.0, 605.0),
    ],
)
def test_a_clock_that_is_set_back_shortens_no_silence(
    now: datetime, observed: float, away: float, silent: float
) -> None:
    contact = replace(OPEN, away_seconds=away)
    assert contacts.silent_seconds(contact, now=now, observed_seconds=observed) == silent


def test_an_answer_from_before_a_kill_does_not_undo_it() -> None:
    killed = contacts.stopped(OPEN, Standing.KILLED, now=LATER)
    late = contacts.opened(killed, sent_at=LATER - timedelta(seconds=1), now=LATER)
    assert late.standing is Standing.KILLED
    later = contacts.opened(killed, sent_at=LATER, now=LATER)
    assert (later.standing, later.known_at) == (Standing.OPEN, LATER)


@pytest.mark.parametrize("standing", [Standing.PAUSED, Standing.UNRECONCILED])
def test_a_claim_does_not_say_that_something_may_open(standing: Standing) -> None:
    stopped = contacts.stopped(OPEN, standing, now=NOON)
    assert contacts.claimed(stopped, sent_at=LATER, now=LATER) == stopped
    assert contacts.opened(stopped, sent_at=LATER, now=LATER).standing is Standing.OPEN


def test_a_kill_stamped_by_a_clock_that_ran_ahead_ends_with_the_next_answer() -> None:
    killed = contacts.stopped(OPEN, Standing.KILLED, now=NOON + timedelta(days=3650))
    assert contacts.opened(killed, sent_at=NOON, now=NOON).standing is Standing.OPEN


def test_a_kill_that_another_process_heard_of_counts_here() -> None:
    killed = contacts.stopped(OPEN, Standing.KILLED, now=LATER)
    assert contacts.newest(OPEN, killed, now=LATER).standing is Standing.KILLED
    reopened = replace(OPEN, known_at=LATER + timedelta(seconds=1))
    assert contacts.newest(reopened, killed, now=LATER).standing is Standing.OPEN


def test_a_contact_of_the_future_is_not_believed() -> None:
    ahead = replace(OPEN, known_at=NOON + timedelta(days=1))
    assert contacts.newest(OPEN, ahead, now=NOON).known_at == NOON


def test_the_circuit_opens_and_lets_one_probe_through() -> None:
    breaker = Breaker(failures_max=2, recovery_seconds=60.0)
    breaker.failed(at=0.0)
    assert breaker.admits(at=0.0)
    breaker.failed(at=1.0)
    assert [breaker.admits(at=at) for at in (1.0, 60.9, 61.0, 61.0)] == [False, False, True, False]
    breaker.failed(at=62.0)
    assert [breaker.admits(at=at) for at in (121.9, 122.0)] == [False, True]
    breaker.succeeded()
    assert breaker.admits(at=122.0)
    breaker.failed(at=123.0)
    assert breaker.admits(at=123.0)


def test_a_probe_that_never_ends_is_followed_by_another() -> None:
    breaker = Breaker(failures_max=1, recovery_seconds=60.0)
    breaker.failed(at=0.0)
    assert [breaker.admits(at=at) for at in (60.0, 119.0, 120.0)] == [True, False, True]


def test_the_service_says_how_long_to_wait_at_least() -> None:
    assert pause_seconds(1, retry_after_seconds=7.0, jitter=0.0) == 7.0
    assert pause_seconds(1, retry_after_seconds=9999.0, jitter=0.0) == 30.0
