"""Trades of a freqtrade backtest result. Its own metrics are not read: they are recomputed.

Only files are read; nothing of freqtrade (GPL) is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from bandit.core.errors import InvalidInput
from liveops.connectors.logged_trade import (
    AccountLog,
    LoggedTrade,
    TradeLog,
    money,
    name,
    trade_from_row,
)

_COLUMNS: Final = {
    "closed_at": "close_timestamp",
    "pnl": "profit_abs",
    "opened_at": "open_timestamp",
    "instrument": "pair",
    "return": "profit_ratio",
}


def is_backtest_result(content: object) -> bool:
    """Whether parsed JSON is a result, not the configuration or parameters exported beside it.

    >>> is_backtest_result({"strategy": {}}), is_backtest_result({"strategy": "Name"})
    (True, False)
    """
    return isinstance(content, dict) and isinstance(content.get("strategy"), dict)


def backtest_log(content: object) -> TradeLog:
    """One account for each strategy of a parsed result; numbers may be given as text.

    Raises `InvalidInput` naming strategy, trade and field.

    >>> trade = {"close_timestamp": 1704193500000, "profit_abs": "0.5", "pair": "ETH/USDT"}
    >>> strategy = {"starting_balance": 1000, "trades": [trade]}
    >>> log = backtest_log({"strategy": {"Arm": strategy}})
    >>> log.starting_capital, log.trades[0].pnl, log.trades[0].policy
    (Decimal('1000'), Decimal('0.5'), 'Arm')
    """
    strategies = content.get("strategy") if isinstance(content, dict) else None
    if not isinstance(strategies, dict) or not strategies:
        raise InvalidInput(
            field="strategy",
            rule="must hold the strategies of a freqtrade backtest result",
            found=type(strategies).__name__,
        )
    return TradeLog(
        accounts=tuple(_account(strategy, result) for strategy, result in strategies.items())
    )


def _account(strategy: str, result: object) -> AccountLog:
    where = f"strategy {name(strategy, field='strategy')}"
    trades = result.get("trades") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(trades, list):
        raise InvalidInput(
            field=where, rule="must have a list of trades", found=type(trades).__name__
        )
    return AccountLog(
        trades=tuple(
            _trade(raw, where=f"{where}, trade {row}", row=row, strategy=strategy)
            for row, raw in enumerate(trades, start=1)
        ),
        starting_capital=money(result.get("starting_balance"), field=f"{where}, starting_balance"),
    )


def _trade(raw: object, *, where: str, row: int, strategy: str) -> LoggedTrade:
    if not isinstance(raw, dict):
        raise InvalidInput(field=where, rule="must be an object", found=type(raw).__name__)
    cells = {ours: raw.get(theirs) for ours, theirs in _COLUMNS.items()}
    derived = {
        "policy": strategy,
        "fees": _fees(raw, where=where),
        "worst_excursion": _worst_excursion(raw, where=where),
        "entry_value": _entry_value(raw, where=where),
        "forced_exit": raw.get("exit_reason") == "force_exit",
    }
    return trade_from_row(cells | derived, where=where, row=row)


def _fees(raw: Mapping[str, object], *, where: str) -> Decimal | None:
    """Fees of entries and exit in money, from rates and prices; None where they are not known.

    A position that was left in several steps is not: `amount` is only what was left at the end.
    """
    orders = raw.get("orders")
    sides = orders if isinstance(orders, list) else []
    if sum(isinstance(order, dict) and order.get("ft_is_entry") is False for order in sides) != 1:
        return None

    known = _amounts(raw, "amount", "open_rate", "fee_open", "close_rate", "fee_close", where=where)
    if known is None:
        return None
    amount, open_rate, fee_open, close_rate, fee_close = known
    return amount * (open_rate * fee_open + close_rate * fee_close)


def _amounts(raw: Mapping[str, object], *keys: str, where: str) -> list[Decimal] | None:
    """What the file says under every one of `keys`; None where it leaves one out."""
    parts = [money(raw.get(key), field=f"{where}, {key}") for key in keys]
    known = [part for part in parts if part is not None]
    return known if len(known) == len(parts) else None


def _worst_excursion(raw: Mapping[str, object], *, where: str) -> Decimal | None:
    """What closing at the worst price of the position's life would have lost of its entry value.

    Fees of both sides included; funding is not, for the file does not say when it was paid.
    """
    found = _amounts(raw, "open_rate", "fee_open", "min_rate", "max_rate", "fee_close", where=where)
    is_short = raw.get("is_short")
    if found is None or not isinstance(is_short, bool) or found[0] <= 0:
        return None
    opened, fee_open, lowest, highest, fee_close = found
    if is_short:
        lost = highest * (1 + fee_close) - opened * (1 - fee_open)
    else:
        lost = opened * (1 + fee_open) - lowest * (1 - fee_close)
    return max(lost / opened, Decimal(0))


def _entry_value(raw: Mapping[str, object], *, where: str) -> Decimal | None:
    """All that was staked in it at its largest, times leverage."""
    found = _amounts(raw, "max_stake_amount", "leverage", where=where)
    return found[0] * found[1] if found is not None and min(found) > 0 else None
