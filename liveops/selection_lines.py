"""A selection of symbols as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from bandit.service.selecting import SelectionReport


def selection_lines(found: SelectionReport) -> Iterator[str]:
    """Yield what is selected and when that may change, then every symbol with its score."""
    made = found.selection
    if made is None:
        yield f"{found.experiment}: nothing is selected yet, so no position opens"
        return
    yield f"{found.experiment}: {', '.join(made.chosen)} since {made.at:%Y-%m-%d %H:%M} UTC"
    due = made.due_at(found.rule)
    rule = found.rule
    yield f"  strongest {rule.top_k} of {len(rule.universe)}, next {due:%Y-%m-%d %H:%M} UTC"
    unknown = [symbol for symbol, score in made.scores.items() if score is None]
    known = [(score, symbol) for symbol, score in made.scores.items() if score is not None]
    for score, symbol in sorted(known, key=lambda each: (-each[0], each[1])):
        mark = "*" if symbol in made.chosen else " "
        yield f"  {mark} {symbol:<14} {score:+.4g}"
    for symbol in unknown:
        yield f"    {symbol:<14} not known"
