"""The dashboard of money: accounts, guards, arms, and what challengers may spend."""

from __future__ import annotations

from typing import Final

from alerts.dashboard import Dashboard, Row, shown, state
from alerts.limits import AlertLimits

_GUARD: Final = {0: "NORMAL", 1: "REDUCED", 2: "PAUSED"}


def trading_dashboard(limits: AlertLimits) -> Dashboard:
    """Return the dashboard, red where `limits` alert.

    >>> trading_dashboard(AlertLimits()).rows[0].title
    'Accounts'
    """
    accounts = (
        shown("Equity", "liveops_account_equity", red_below=limits.balance),
        shown("Lost today", "liveops_account_daily_loss_ratio", red_above=limits.daily_loss),
        shown("Drawdown", "liveops_account_drawdown_ratio", red_above=limits.drawdown),
        shown("Kill switch", "liveops_account_killed", red_above=1),
        shown("Trading halted", "liveops_trading_halted", red_above=1),
        shown("Bots and ledger agree", "liveops_account_reconciled", red_below=1),
        shown("Positions still to be closed", "liveops_close_orders_pending"),
    )
    guards = (
        shown("State of guards", "liveops_performance_guard_state", states=_GUARD, red_above=1),
        shown("Win rate in the window", "liveops_performance_guard_win_ratio"),
        shown("Drawdown in the window", "liveops_performance_guard_drawdown_ratio"),
        shown("Losses in a row at guards", "liveops_performance_guard_losing_streak"),
        shown("Trades since the state was entered", "liveops_performance_guard_trades"),
    )
    return Dashboard(
        name="trading",
        description="Accounts, guards and arms: who trades, what it earns, what stops it.",
        rows=(
            Row(title="Accounts", panels=accounts),
            Row(title="Guards", panels=guards),
            _arms(limits),
            Row(
                title="Exploration",
                panels=(
                    shown("Budget that is used", "liveops_exploration_used_ratio", red_above=1),
                    shown("Room for challengers", "liveops_exploration_room"),
                ),
            ),
        ),
    )


def _arms(limits: AlertLimits) -> Row:
    panels = (
        shown("Traffic of each arm", "liveops_arm_traffic_ratio"),
        state("Status of each arm", "liveops_arm_status"),
        shown(
            "Profit factor of challengers beside the champion",
            *("pf_challenger_30", "pf_prod"),
            unit="none",
            red_below=limits.profit_factor,
        ),
        shown("Profit factor", "liveops_arm_profit_factor", unit="none"),
        shown("Drawdown of challengers", "dd_challenger_pct", red_above=limits.drawdown_percent),
        shown("Drawdown of each arm", "liveops_arm_drawdown_ratio"),
        shown("Win rate", "liveops_arm_win_ratio", red_below=limits.win_rate),
        shown("Sharpe ratio", "liveops_arm_sharpe_ratio", unit="none", red_below=limits.sharpe),
        shown("Losses in a row", "liveops_arm_losing_streak", red_above=limits.losing_streak),
        shown("Money earned", "liveops_arm_pnl"),
        shown("Trades", "liveops_arm_trades_total"),
        shown("Losing trades", "liveops_arm_losses_total"),
    )
    return Row(title="Arms", panels=panels)
