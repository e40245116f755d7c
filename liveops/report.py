"""Reports for the terminal: what an operator sees of arms, checklist and decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bandit.core.checklist import ArmRow
from bandit.core.ladder import CHAMPION_DECAY
from bandit.core.live_gap import Gap
from bandit.core.model import WHOLE_PPM, ArmStatus, Verdict
from bandit.core.profit_factor import ProfitFactor, ProfitFactorState
from bandit.core.promotion import rollback_advice
from bandit.core.reconciling import ReconciliationState
from bandit.core.upkeep import UpkeepRow
from bandit.service.accounts import AccountReport
from bandit.service.arm_report import ArmReport
from bandit.service.exploring import BudgetReport
from bandit.service.rebuilding import ArmNumbers
from bandit.service.reporting import ExperimentReport
from bandit.storage.reconciliations import ReconciliationRecord
from liveops.decision_lines import moment_of
from liveops.guard_lines import guard_lines
from liveops.sparkline import sparkline

CURVE_DAYS: Final = 30
_STATUS_STYLE = {
    ArmStatus.ACTIVE: "green",
    ArmStatus.THROTTLED: "yellow",
    ArmStatus.HALTED: "red",
    ArmStatus.RETIRED: "dim",
}
_VERDICT_STYLE = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow"}


def render_report(report: ExperimentReport) -> RenderableType:
    """Return the report as tables: arms, then each challenger's checklist and evidence."""
    experiment = report.record.experiment
    title = f"{experiment.name}: {experiment.profile}, allocation version {report.version}"
    account = account_line(report.account)
    tables: list[RenderableType] = [_arms_table(report, title), account]
    tables += map(Text, champion_lines(report))
    if report.exploration is not None:
        tables += budget_lines(report.exploration)
    tables += [*guard_lines(report.guards), *limit_warnings(report), ""]
    if any(arm.profit_by_day for arm in report.arms):
        tables += [_curves_table(report), ""]
    tables += [_checklist_table(report), ""]
    if any(arm.evidence for arm in report.arms):
        tables += [_evidence_table(report), *map(Text, advice_lines(report)), ""]
    if report.draws is not None or any(arm.claims for arm in report.arms):
        tables += [_operation_table(report), ""]
    if any(arm.on_paper.pairs.n or arm.on_paper.gap.n for arm in report.arms):
        tables += [_paper_table(report), ""]
    if any(arm.beside_backtest for arm in report.arms):
        tables += [_backtest_table(report), ""]
    return Group(*tables)


def advice_lines(report: ExperimentReport) -> list[str]:
    """Return what a person may want to do about what the newest night found."""
    return [
        rollback_advice(report.record.experiment, arm.arm.place.policy)
        for arm in report.arms
        for reason in arm.evidence
        if reason.check == CHAMPION_DECAY and reason.verdict is Verdict.FAIL
    ]


def account_line(account: AccountReport) -> Text:
    """Return where an account's money stands, in red and with the reason when it is killed."""
    equity = account.equity
    said = (
        f"account {account.record.name}: equity {equity.equity:.2f} {account.record.currency}, "
        f"drawdown {equity.drawdown_percent:.2f}%, "
        f"lost {equity.daily_loss_percent:.2f}% on {equity.day}"
    )
    event, since = account.record.newest, account.record.killed_since
    if event is None or since is None:
        return Text(said)
    why = f"KILLED since {since:%Y-%m-%d %H:%M} by {event.actor} ({event.cause}): {event.reason}"
    return Text(f"{said}\n{why}", style="bold red")


def limit_warnings(report: ExperimentReport) -> list[Text]:
    """Say which drawdown limits stop healthy arms, or hardly ever a sick one."""
    said = []
    window = report.record.rules.checklist.long_window
    for found in report.limit_checks:
        head = f"warning: {found.setting} {found.percent:g}:"
        within = f"in 100 pass it within {window} trades"
        spares, catches = (reason.verdict for reason in found.reasons)
        if spares is Verdict.FAIL and found.healthy is not None:
            said.append(
                f"{head} of arms as good as the champion {100 * found.healthy:.0f} {within}"
            )
        if catches is Verdict.FAIL and found.sick is not None:
            lose = "arms that lose what the champion earns"
            said.append(f"{head} of {lose} only {100 * found.sick:.0f} {within}")
    return [Text(line, style="yellow") for line in said]


def budget_lines(found: BudgetReport) -> list[str]:
    """Say where an exploration budget stands, in lines for a terminal."""
    explored, budget, currency = found.explored, found.budget, found.currency
    cost = (
        f"{explored.spent:.2f} {currency} spent ({found.percent(explored.spent):.2f} % of capital)"
    )
    aside = f"{explored.reserved:.2f} set aside for {explored.n_open} open decisions"
    if budget is None:
        return [f"exploration of {found.experiment}: no budget; {cost}, {aside}"]
    charge = budget.reservation.charge
    said = [
        f"exploration of {found.experiment}: {cost} of {budget.amount:.2f}, {aside}",
        f"a decision is charged {charge:.2f} until its outcome is told: "
        f"{budget.at_risk:.2f} that it may lose, {budget.expected:.2f} that the champion earns",
    ]
    if budget.left(explored) < 0:
        said.append("OVER THE BUDGET: the champion decides until it is raised or earned back")
    elif charge > budget.amount:
        said.append("NO ROOM: a decision is charged more than the whole budget")
    elif not found.room:
        said.append("NO ROOM: the champion decides until outcomes come in or the budget is raised")
    else:
        said.append(f"room for {found.room} more decisions of challengers before any outcome")
    return said


def champion_lines(report: ExperimentReport) -> list[str]:
    """Return how the champion became one; nothing where the experiment opened with it."""
    made = report.succession
    if made is None:
        return []
    how = f"{made.kind} by {made.actor} on {moment_of(made)}: {made.reason}"
    return [f"champion {report.record.experiment.champion}: {how}"]


def render_accounts(accounts: Sequence[AccountReport]) -> RenderableType:
    """Return accounts as a table, and under it why some are killed."""
    table = _table("accounts")
    table.add_column("account")
    for name in ("equity", "peak", "drawdown", "lost today"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("kill switch")
    for account in accounts:
        equity, is_killed = account.equity, account.record.is_killed
        table.add_row(
            f"{account.record.name} ({account.record.currency})",
            f"{equity.equity:.2f}",
            f"{equity.peak:.2f}",
            f"{equity.drawdown_percent:.2f}%",
            f"{equity.daily_loss_percent:.2f}%",
            Text("KILLED", style="bold red") if is_killed else Text("off", style="green"),
        )
    lines = [account_line(a) for a in accounts if a.record.is_killed]
    told = [(a.record.name, a.reconciliation) for a in accounts]
    lines += [_reconciliation_line(name, found) for name, found in told if found is not None]
    return Group(table, *lines)


def _reconciliation_line(name: str, found: ReconciliationRecord) -> Text:
    agrees = found.state is ReconciliationState.AGREES
    said = f"account {name}: bots and ledger "
    said += "agree" if agrees else f"differ ({found.state}) since {found.since:%Y-%m-%d %H:%M}"
    if not agrees:
        said += f": {found.differs}"
    compared = found.reconciliation
    if compared.accepted or compared.accepted_difference:
        said += (
            f"; accepted: {len(compared.accepted)} positions, "
            f"{compared.accepted_difference:f} of what they tell"
        )
    return Text(said, style="green" if agrees else "bold red")


def _arms_table(report: ExperimentReport, title: str) -> Table:
    table = _table(title)
    table.add_column("policy")
    for name in ("traffic", "trades", "won", "P&L", "PF", "pf_150", "pf_prod", "dd_150"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in report.arms:
        sums = arm.statistics.sums
        table.add_row(
            arm.arm.place.policy,
            _traffic(arm),
            str(sums.n_trades),
            f"{100 * sums.n_wins / sums.n_trades:.0f}%" if sums.n_trades else "-",
            f"{sums.pnl:.2f}",
            shown_factor(sums.profit_factor),
            shown_factor(arm.long.profit_factor),
            "-" if not arm.checklist else shown_factor(arm.reading.pf_prod),
            f"{arm.reading.dd_long_percent:.2f}%",
        )
    return table


def _curves_table(report: ExperimentReport) -> Table:
    """Show what each arm earned over the days up to the newest of any, added up."""
    last = max(day for arm in report.arms for day in arm.profit_by_day)
    first = last - timedelta(days=CURVE_DAYS - 1)
    table = _table(f"money earned, {first} to {last}")
    for name in ("policy", "added up, by day"):
        table.add_column(name, no_wrap=True)
    table.add_column("earned", justify="right", no_wrap=True)
    for arm in report.arms:
        sums = _added_up(arm.profit_by_day, first)
        style = "green" if sums[-1] > 0 else "red" if sums[-1] < 0 else "dim"
        curve = Text(sparkline(sums, width=CURVE_DAYS), style=style)
        table.add_row(arm.arm.place.policy, curve, f"{sums[-1]:+.2f}")
    return table


def _added_up(profit_by_day: Mapping[date, Decimal], first: date) -> list[float]:
    days = (first + timedelta(days=i) for i in range(CURVE_DAYS))
    return [float(sum_) for sum_ in accumulate(profit_by_day.get(day, Decimal(0)) for day in days)]


def _traffic(arm: ArmReport) -> Text:
    place = arm.arm.place
    if place.status is ArmStatus.ACTIVE:
        return Text(f"{100 * place.ppm / WHOLE_PPM:.1f}%", style="green")
    return Text(f"0% {place.status}", style=_STATUS_STYLE[place.status])


def render_machine(row: UpkeepRow) -> RenderableType:
    """Return the checklist of the machine that the report is made on."""
    return _rows_table("checklist of this machine", [("GPU", row)])


def _checklist_table(report: ExperimentReport) -> Table:
    found = [(arm.arm.place.policy, row) for arm in report.arms for row in arm.rows]
    return _rows_table("checklist", found)


def _rows_table(title: str, found: Sequence[tuple[str, ArmRow | UpkeepRow]]) -> Table:
    table = _table(title)
    for name in ("of", "metric"):
        table.add_column(name)
    for name in ("value", "expected", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for whose, row in found:
        reason = row.reason
        verdict = reason.verdict
        asks = f": {row.action}" if row.flagged else ""
        table.add_row(
            whose,
            row.metric,
            reason.note if reason.value is None else shown(reason.value),
            f"{row.band[0]:g} to {row.band[1]:g}",
            shown(reason.limit),
            Text(f"{verdict}{asks}", style=_VERDICT_STYLE[verdict]),
        )
    return table


def _evidence_table(report: ExperimentReport) -> Table:
    night = next(arm.evidence_night for arm in report.arms if arm.evidence)
    table = _table(f"evidence beside the champion, as of the night of {night}")
    for name in ("policy", "rung", "check"):
        table.add_column(name)
    for name in ("value", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for arm in report.arms:
        for i, reason in enumerate(arm.evidence):
            table.add_row(
                "" if i else arm.arm.place.policy,
                "" if i else arm.arm.place.rung.value,
                reason.check,
                shown(reason.value),
                shown(reason.limit),
                Text(reason.verdict, style=_VERDICT_STYLE[reason.verdict]),
            )
    return table


def _operation_table(report: ExperimentReport) -> Table:
    table = _table("decisions of the 30 days before the newest night")
    for name in ("policy", "check"):
        table.add_column(name)
    for name in ("value", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    checked = [(arm.arm.place.policy, arm.claims) for arm in report.arms]
    for policy, reason in (*checked, ("", report.draws)):
        if reason is not None:
            table.add_row(
                policy,
                reason.check,
                shown(reason.value),
                shown(reason.limit),
                Text(reason.verdict, style=_VERDICT_STYLE[reason.verdict]),
            )
    return table


def _paper_table(report: ExperimentReport) -> Table:
    table = _table("results on paper, in no number above")
    table.add_column("policy")
    for name in ("pairs", "evidence", "gap trades", "paper - live"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("agrees")
    for arm in report.arms:
        found = arm.on_paper
        if found.pairs.n or found.gap.n:
            table.add_row(
                arm.arm.place.policy,
                str(found.pairs.n),
                shown(found.pairs.strength.mean_up if found.pairs.n else None),
                str(found.gap.n),
                shown(found.agrees.value),
                Text(found.agrees.verdict, style=_VERDICT_STYLE[found.agrees.verdict]),
            )
    return table


def _backtest_table(report: ExperimentReport) -> Table:
    table = _table("newest live trades less the backtest, with 95 % intervals")
    for name in ("policy", "of a trade"):
        table.add_column(name)
    for name in ("live", "backtest", "gap", "from", "to"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worse")
    for arm in report.arms:
        gaps = {} if arm.beside_backtest is None else arm.beside_backtest.gap.by_name
        for i, (name, gap) in enumerate(gaps.items()):
            told = gap.to_json()
            numbers = (told[key] for key in ("live", "backtest", "difference", "low", "high"))
            table.add_row(
                "" if i else arm.arm.place.policy, name, *map(shown, numbers), _worse(gap)
            )
    return table


def _worse(gap: Gap) -> Text:
    if gap.is_worse is None:
        return Text("not known" if gap.difference is None else "too few", style="yellow")
    return Text("yes", style="red") if gap.is_worse else Text("not shown")


def render_numbers(title: str, found: ArmNumbers) -> RenderableType:
    """Return an arm's numbers as a table of one row."""
    sums, windows = found.statistics.sums, found.windows
    table = _table(title)
    for name in ("outcomes", "trades", "P&L", "PF", "pf_30", "pf_150", "dd_150"):
        table.add_column(name, justify="right", no_wrap=True)
    deepest = windows.long.drawdown_percent
    table.add_row(
        str(sums.n_outcomes),
        str(sums.n_trades),
        f"{sums.pnl:.2f}",
        shown_factor(sums.profit_factor),
        shown_factor(windows.short.profit_factor),
        shown_factor(windows.long.profit_factor),
        "-" if deepest is None else f"{deepest:.2f}%",
    )
    return table


def _table(title: str) -> Table:
    # Narrow enough for a terminal of 80 columns.
    return Table(
        title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="dim"
    )


def shown_factor(factor: ProfitFactor) -> str:
    """Return a profit factor as people read it; its state where there is no number.

    >>> shown_factor(ProfitFactor(gross_profit=3.0, gross_loss=2.0, n=5, n_losses=2))
    '1.50'
    >>> shown_factor(ProfitFactor(gross_profit=3.0, gross_loss=0.0, n=5, n_losses=0))
    'no losses'
    """
    if factor.state is ProfitFactorState.FINITE:
        return f"{factor.value:.2f}"
    return factor.state.value.replace("_", " ")


def shown(value: float | None) -> str:
    """Return a number as reports print it.

    >>> shown(0.123456), shown(None)
    ('0.1235', '-')
    """
    return "-" if value is None else f"{value:.4g}"
