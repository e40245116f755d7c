"""The policy card on one page of Markdown, for whoever decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from learners.card_numbers import Number
from learners.policy_card import CardBaseline, CardCheck, CardEntries, CardLook, PolicyCard

LOOKS_SHOWN: Final = 10

# Of each number: what it is called, its form, and what it is multiplied with.
_ROWS: Final[Mapping[str, tuple[str, str, float]]] = {
    "total_return": ("total return", "{:+.2f} %", 100.0),
    "annual_sharpe": ("Sharpe ratio, annual", "{:.2f}", 1.0),
    "probabilistic_sharpe": ("chance of a ratio above 0, of this trial alone", "{:.3f}", 1.0),
    "deflated_sharpe": ("the same, the luck of all trials taken off", "{:.3f}", 1.0),
    "track_record_min_days": ("days to show a ratio above 0", "{:,.0f}", 1.0),
    "days": ("days measured", "{:,.0f}", 1.0),
    "drawdown_max_percent": ("deepest drawdown", "{:.2f} %", 1.0),
    "trades": ("trades", "{:,.0f}", 1.0),
    "profit_factor": ("profit factor", "{:.3f}", 1.0),
    "win_rate": ("win rate", "{:.1f} %", 100.0),
    "return_mean": ("mean return of a trade", "{:+.4f} %", 100.0),
}


def page_of(card: PolicyCard) -> str:
    """Return the card as Markdown; the first line after the title is what it comes to."""
    subject, search = card.subject, card.search
    measured = [_number_row(name, card.numbers[name]) for name in _ROWS if name in card.numbers]
    return "\n".join(
        [
            f"# {card.policy}",
            "",
            f"**{card.headline}**",
            "",
            f"Verdict {card.verdict.value}. Kind {subject.kind.value}, trial "
            f"`{subject.trial[:12]}` of the search `{subject.family}`, measured on bars that it "
            f"was not made from ({subject.folds} folds); card of "
            f"{card.made_at:%Y-%m-%d %H:%M} UTC.",
            "",
            *_table(("number", "value", "95 % interval"), measured),
            *_table(
                ("beside it", "total return", "Sharpe, annual", "drawdown", "trades"),
                [_baseline_row(baseline) for baseline in card.baselines],
            ),
            *_table(
                ("check", "found", "limit", "verdict"), [_check_row(check) for check in card.checks]
            ),
            f"**Trials counted:** {search.n_trials:,}, of which {search.n_measured:,} have a "
            f"Sharpe ratio; their deviation is {_text(search.annual_deviation)}, and the best of "
            f"so many has {_text(search.annual_benchmark)} by luck (annual).",
            "",
            *(
                f"**Measured on:** {market.instrument}, {market.first:%Y-%m-%d} to "
                f"{market.last:%Y-%m-%d}, {market.bars:,} bars of `{market.data[:12]}`."
                for market in card.markets
            ),
            "",
            *_entries(card.entries),
            f"**Charged** for each fill: {1e4 * card.costs.fee_ratio:g} basis points of fees, "
            f"{1e4 * card.costs.slippage_ratio:g} of slippage.",
            "",
            f"**Made from:** data `{subject.data[:12]}` of {subject.window_first:%Y-%m-%d} to "
            f"{subject.window_last:%Y-%m-%d}, {len(subject.feature_names)} features "
            f"`{subject.features[:12]}`, spec `{subject.spec[:12]}`, seed {subject.seed}, "
            f"{subject.steps:,} steps.",
            "",
            *_looks(card.looks),
            "**Not modelled:**",
            "",
            *(f"- {text}" for text in card.not_modelled),
            "",
        ]
    )


def _entries(found: CardEntries | None) -> list[str]:
    if found is None:
        return []
    return [
        f"**Wanted in** at {found.wanted:,} of the {found.asked:,} closes at which it held "
        f"nothing, and entered {found.entered:,} times: {found.unsure:,} times it was less sure "
        f"than {100 * found.confidence_min:g} %, {found.off_regime:,} times the market's regime "
        "forbade it (both may be).",
        "",
    ]


def _looks(found: tuple[CardLook, ...]) -> list[str]:
    if not found:
        return []
    shown = ", ".join(f"{look.column} {100 * look.share:.1f} %" for look in found[:LOOKS_SHOWN])
    return [
        f"**Looks at** (share of TabNet's masks over the bars it was made from): {shown}"
        f"{', and the rest less' if len(found) > LOOKS_SHOWN else ''}.",
        "",
    ]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def _number_row(name: str, number: Number) -> tuple[str, str, str]:
    label, form, times = _ROWS[name]
    if number.value is None:
        return label, number.state.value.replace("_", " "), ""
    interval = ""
    if number.low is not None and number.high is not None:
        interval = f"{form.format(times * number.low)} to {form.format(times * number.high)}"
    return label, form.format(times * number.value), interval


def _baseline_row(found: CardBaseline) -> tuple[str, ...]:
    earned = f"{100 * found.total_return:+.2f} %"
    if found.low is not None and found.high is not None:
        earned += f" ({100 * found.low:+.2f} to {100 * found.high:+.2f} %)"
    if found.as_good is not None:
        earned += f"; as good in {100 * found.as_good:.1f} %"
    deepest = found.drawdown_max_percent
    drawdown = "" if deepest is None else f"{deepest:.2f} %"
    sharpe = "" if found.annual_sharpe is None else f"{found.annual_sharpe:.2f}"
    return found.name, earned, sharpe, drawdown, f"{found.trades:,}"


def _check_row(found: CardCheck) -> tuple[str, ...]:
    return found.check, _text(found.value), _text(found.limit), found.verdict.value


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
