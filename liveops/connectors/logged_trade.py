"""What a trade log holds, and how one row of any format becomes a checked trade."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, TypeVar

from bandit.core.equity import checked_result
from bandit.core.errors import InvalidInput

T = TypeVar("T")

REQUIRED_COLUMNS: Final = ("closed_at", "pnl")
OPTIONAL_COLUMNS: Final = (
    "opened_at",
    "instrument",
    "return",
    "fees",
    "policy",
    "worst_excursion",
    "entry_value",
    "forced_exit",
)
TRADES_MAX: Final = 2_000_000
TEXT_LENGTH_MAX: Final = 255
# The ledger's money is NUMERIC(24, 8). Foreign logs carry the rounding noise of doubles, so more
# decimals are taken; sums of TRADES_MAX such amounts are exact in 80 digits.
MONEY_LIMIT: Final = Decimal(10) ** 16
MONEY_DECIMALS_MAX: Final = 40

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT_MIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_INSTANT_MAX: Final = datetime(2100, 1, 1, tzinfo=UTC)
# Not everything that Decimal() takes: no underscores, no NaN, no digits of other scripts.
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_MILLISECONDS: Final = re.compile(r"-?\d{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTrade:
    """One closed trade of a log. `row` counts from 1 and orders trades that closed together.

    `pnl` and `fees` are money of the account, `pnl` net of `fees`; `return_ratio` is a fraction.
    `entry_value` is what was paid or owed at entry, leverage included, and `worst_excursion` (0 or
    more) the ratio of it that the position stood to lose at its worst.
    `forced_exit`: the position was still open when the log ended, and `pnl` is its mark.
    """

    row: int
    closed_at: datetime
    pnl: Decimal
    opened_at: datetime | None = None
    instrument: str | None = None
    return_ratio: float | None = None
    fees: Decimal | None = None
    policy: str | None = None
    worst_excursion: float | None = None
    entry_value: Decimal | None = None
    forced_exit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLog:
    """The trades of one account, and the capital it started with where the file knows it."""

    trades: tuple[LoggedTrade, ...]
    starting_capital: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeLog:
    """A whole file: one account in our own formats, one for each strategy of a backtest result.

    `ignored_columns` names columns without a meaning here, so that a misspelt one is seen.
    """

    accounts: tuple[AccountLog, ...]
    ignored_columns: tuple[str, ...] = ()

    @property
    def trades(self) -> tuple[LoggedTrade, ...]:
        """Every trade of every account."""
        return tuple(trade for account in self.accounts for trade in account.trades)

    @property
    def starting_capital(self) -> Decimal | None:
        """What all accounts started with together; None where one of them does not say."""
        known = [a.starting_capital for a in self.accounts if a.starting_capital is not None]
        return sum(known, Decimal(0)) if len(known) == len(self.accounts) else None


def trade_from_row(raw: Mapping[str, object], *, where: str, row: int) -> LoggedTrade:
    """A checked trade from cells under our column names: text, numbers, instants or None.

    Raises `InvalidInput` whose field is `where` and the column.

    >>> trade = trade_from_row({"closed_at": 1704193500000, "pnl": "0.50"}, where="line 2", row=1)
    >>> trade.closed_at.isoformat(), trade.pnl
    ('2024-01-02T11:05:00+00:00', Decimal('0.50'))
    """
    if row > TRADES_MAX:
        raise InvalidInput(field="trades", rule=f"must be at most {TRADES_MAX}", found=row)
    at, earned = f"{where}, closed_at", f"{where}, pnl"
    closed_at = _given(instant(raw.get("closed_at"), field=at), field=at)
    pnl = _given(money(raw.get("pnl"), field=earned), field=earned)
    opened_at = instant(raw.get("opened_at"), field=f"{where}, opened_at")
    if opened_at is not None and opened_at > closed_at:
        raise InvalidInput(
            field=f"{where}, opened_at", rule=f"must not be after {closed_at}", found=opened_at
        )
    return LoggedTrade(
        row=row,
        closed_at=closed_at,
        pnl=pnl,
        opened_at=opened_at,
        instrument=name(raw.get("instrument"), field=f"{where}, instrument"),
        return_ratio=ratio(raw.get("return"), field=f"{where}, return"),
        fees=money(raw.get("fees"), field=f"{where}, fees"),
        policy=name(raw.get("policy"), field=f"{where}, policy"),
        worst_excursion=_excursion(raw.get("worst_excursion"), field=f"{where}, worst_excursion"),
        entry_value=_entry_value(raw.get("entry_value"), field=f"{where}, entry_value"),
        forced_exit=flag(raw.get("forced_exit"), field=f"{where}, forced_exit"),
    )


def _excursion(value: object, *, field: str) -> float | None:
    excursion = ratio(value, field=field)
    if excursion is not None and excursion < 0.0:
        raise InvalidInput(field=field, rule="must not be negative", found=value)
    return excursion


def _entry_value(value: object, *, field: str) -> Decimal | None:
    amount = money(value, field=field)
    if amount is not None and amount <= 0:
        raise InvalidInput(field=field, rule="must be positive", found=value)
    return amount


def _given(value: T | None, *, field: str) -> T:
    if value is None:
        raise InvalidInput(field=field, rule="must be given", found="nothing")
    return value


def instant(value: object, *, field: str) -> datetime | None:
    """An aware UTC time from an ISO text with offset, epoch milliseconds, or a datetime.

    A time without an offset is refused: reading it as UTC could move trades to another day.

    >>> instant("2024-01-02T13:05:00+02:00", field="closed_at").isoformat()
    '2024-01-02T11:05:00+00:00'
    """
    if value is None:
        return None
    moment = _moment(value)
    if moment is None or moment.tzinfo is None:
        raise InvalidInput(
            field=field,
            rule="must be ISO 8601 with an offset or Z, or epoch milliseconds",
            found=value,
        )
    if not _INSTANT_MIN <= moment < _INSTANT_MAX:
        raise InvalidInput(
            field=field, rule="must lie between the years 2000 and 2100", found=value
        )
    return moment.astimezone(UTC)


def _moment(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value
    text = str(value)
    if isinstance(value, int | str) and _MILLISECONDS.fullmatch(text):
        # Years that datetime cannot hold are out of bounds anyway.
        milliseconds = max(min(int(text), 10**14), 0)
        return _EPOCH + timedelta(milliseconds=milliseconds)
    try:
        return datetime.fromisoformat(text) if isinstance(value, str) else None
    except ValueError:
        return None


def _number(value: object, *, field: str) -> str | None:
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool) or not _NUMBER.fullmatch(text):
        raise InvalidInput(field=field, rule="must be a finite number", found=text)
    return text


def money(value: object, *, field: str) -> Decimal | None:
    """Exact money from a text or number as it is printed; None stays None.

    >>> money(0.1, field="pnl") + money("0.2", field="pnl")
    Decimal('0.3')
    """
    text = _number(value, field=field)
    if text is None:
        return None
    amount = Decimal(text)
    decimals = -int(amount.as_tuple().exponent)
    if abs(amount) >= MONEY_LIMIT or decimals > MONEY_DECIMALS_MAX:
        raise InvalidInput(
            field=field,
            rule=f"must be below {MONEY_LIMIT:g} with at most {MONEY_DECIMALS_MAX} decimals",
            found=text,
        )
    return amount


def ratio(value: object, *, field: str) -> float | None:
    """A fraction such as a return; None stays None.

    >>> ratio("-0.0125", field="return")
    -0.0125
    """
    text = _number(value, field=field)
    return None if text is None else checked_result(float(text), field=field)


def name(value: object, *, field: str) -> str | None:
    """A name of at most 255 printable characters, without the spaces round it; empty is None.

    >>> name(" BTC/USDT ", field="instrument")
    'BTC/USDT'
    """
    if value is None:
        return None
    text = str(value).strip()
    if not text.isprintable() or len(text) > TEXT_LENGTH_MAX:
        raise InvalidInput(
            field=field,
            rule=f"must be at most {TEXT_LENGTH_MAX} printable characters",
            found=ascii(text),
        )
    return text or None


def flag(value: object, *, field: str) -> bool:
    """A yes or no from a text or a boolean; nothing is no.

    >>> flag("TRUE", field="forced_exit"), flag(None, field="forced_exit")
    (True, False)
    """
    match value:
        case None:
            return False
        case bool():
            return value
        case str() if value.lower() in ("true", "false"):
            return value.lower() == "true"
        case _:
            raise InvalidInput(field=field, rule="must be true or false", found=value)
