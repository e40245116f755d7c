"""Log lines: an event, its data, and no caller's text that passes for a line of its own."""

from __future__ import annotations

import logging
import sys

import pytest

from liveops.events import EventFormatter


def line(message: str, **data: object) -> str:
    record = logging.makeLogRecord({"name": "liveops.api", "levelname": "INFO", "msg": message})
    vars(record).update(data)
    return EventFormatter().format(record).partition(" INFO ")[2]


def test_the_data_of_an_event_follows_it() -> None:
    said = line("allocation changed", version=7, policy="prod v2", ended=None)
    assert said == 'liveops.api: allocation changed version=7 policy="prod v2" ended=null'


@pytest.mark.parametrize(
    "text", ["a\r\nINFO forged", "\x1b[2J", "\u2028forged", "\u0085forged", "\u202eforged", "\x00"]
)
def test_no_text_breaks_a_line_or_steers_a_terminal(text: str) -> None:
    for said in (line(text), line("event", name_of_policy=text)):
        assert len(said.splitlines()) == 1
        assert said.isprintable()


def test_names_beyond_ascii_stay_readable_in_messages() -> None:
    assert line("Müller: ok") == "liveops.api: Müller: ok"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    said = EventFormatter().format(record).splitlines()
    assert said[0].endswith(": failed")
    assert said[1] == "Traceback (most recent call last):"
    assert said[-1] == "ValueError: broken"
