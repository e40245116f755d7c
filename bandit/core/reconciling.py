"""What bots say they hold against what the ledger says: the venue is the truth (SPEC K2).

docs/reconciliation.md says what to do about each difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from bandit.core.errors import InvalidInput

FINDINGS_MAX: Final = 256
"""Of more differences the oldest are looked at, until they have ended."""

_SHOWN: Final = 3
_SUMMARY_MAX: Final = 1000
_ZERO: Final = Decimal(0)
_EXACT_DIGITS: Final = 80  # as many as the account's own limits are read with


class Kind(StrEnum):
    """How the two differ; values are stable, programs read them.

    Of a position that a bot tells of: nobody made the decision, it is another account's, only on
    paper, about a position that another one opened, not claimed, or closed. `MISSING`: the ledger
    has it open, and no bot holds it.
    """

    UNKNOWN = "unknown"
    OTHER_ACCOUNT = "other_account"
    NOT_LIVE = "not_live"
    NOT_OPENING = "not_opening"
    UNCLAIMED = "unclaimed"
    CLOSED = "closed"
    MISSING = "missing"
    BALANCE = "balance"


class ReconciliationState(StrEnum):
    """Whether bots and ledger agree; BLOCKED: they do not, and nothing new opens."""

    AGREES = "AGREES"
    DIFFERS = "DIFFERS"
    BLOCKED = "BLOCKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationRule:
    """When a difference counts, and whether it stops the account from opening anything new.

    `balance_tolerance` is a fraction of the ledger's equity; exactly at it nothing differs.

    >>> ReconciliationRule(balance_tolerance=Decimal("-0.1"))
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: balance_tolerance: must lie in 0..1, found -0.1
    """

    balance_tolerance: Decimal = Decimal("0.01")
    grace: timedelta = timedelta(seconds=60)
    blocks: bool = True

    def __post_init__(self) -> None:
        """Refuse a tolerance that is no fraction, and a grace below 0."""
        if not 0 <= self.balance_tolerance <= 1:
            found = self.balance_tolerance
            raise InvalidInput(field="balance_tolerance", rule="must lie in 0..1", found=found)
        if self.grace < timedelta(0):
            raise InvalidInput(field="grace", rule="must not be below 0", found=self.grace)


class Word(NamedTuple):
    """What a running bot of the account said last; None is "not told"."""

    bot: str
    heard_at: datetime
    positions: frozenset[UUID] | None
    equity: Decimal | None


class Standing(NamedTuple):
    """What the ledger says of a position that is told: how it differs, and since when it can.

    `kind` is None where it is the account's, and open. `at` is when it was claimed, or decided
    where it was not; None of one that nobody decided.
    """

    kind: Kind | None
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the ledger says of an account: open positions by when they were claimed, and its money.

    `told` has the standing of every position that some bot tells of.
    """

    open: Mapping[UUID, datetime]
    told: Mapping[UUID, Standing]
    equity: Decimal


class Key(NamedTuple):
    """What differs: a position, or without one the balance."""

    kind: Kind
    position: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A difference, first seen `since`; `in_force` once it has outlasted its grace.

    `told` and `ledger` are the two balances.
    """

    key: Key
    since: datetime
    in_force: bool
    told: Decimal | None = None
    ledger: Decimal | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as it is stored and shown."""
        position = self.key.position
        return {
            "kind": self.key.kind.value,
            "position": None if position is None else str(position),
            "since": self.since.isoformat(),
            "in_force": self.in_force,
            "told": None if self.told is None else f"{self.told:f}",
            "ledger": None if self.ledger is None else f"{self.ledger:f}",
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Finding:
        """Return what `to_json` gave."""
        return cls(
            key=_key(stored["kind"], stored["position"]),
            since=datetime.fromisoformat(stored["since"]),
            in_force=stored["in_force"],
            told=None if stored["told"] is None else Decimal(stored["told"]),
            ledger=None if stored["ledger"] is None else Decimal(stored["ledger"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """How an account's bots and ledger compare; `accepted` is what a person let pass.

    `accepted_difference` is the part of the balance that the ledger never saw, such as deposits: it
    is taken off what is told before the two are compared.
    """

    findings: tuple[Finding, ...] = ()
    accepted: frozenset[Key] = frozenset()
    accepted_difference: Decimal = _ZERO

    @property
    def in_force(self) -> tuple[Finding, ...]:
        """The differences that have outlasted their grace, the oldest first."""
        return tuple(finding for finding in self.findings if finding.in_force)

    def state(self, rule: ReconciliationRule) -> ReconciliationState:
        """Return what `rule` makes of it."""
        if not self.in_force:
            return ReconciliationState.AGREES
        return ReconciliationState.BLOCKED if rule.blocks else ReconciliationState.DIFFERS

    def with_accepted(self) -> Reconciliation:
        """Return what a person makes of it who accepts what differs now.

        >>> at = datetime.fromisoformat("2026-03-01T12:00:00Z")
        >>> deposit = Finding(key=Key(Kind.BALANCE), since=at, in_force=True, told=Decimal(12),
        ...                   ledger=Decimal(10))
        >>> Reconciliation(findings=(deposit,)).with_accepted().accepted_difference
        Decimal('2')
        """
        difference = self.accepted_difference
        for finding in self.findings:
            if finding.told is not None and finding.ledger is not None:
                difference = _less(finding.told, finding.ledger)
        positions = {finding.key for finding in self.findings if finding.key.position is not None}
        return Reconciliation(accepted=self.accepted | positions, accepted_difference=difference)


def judged(
    held: Reconciliation,
    words: Sequence[Word],
    books: Books,
    rule: ReconciliationRule,
    *,
    now: datetime,
    began: tuple[str, datetime] | None = None,
) -> Reconciliation:
    """Return how an account compares once one of its bots was heard.

    `words` are of every running bot of the account that is not silent. `began` names the one whose
    run tells of positions for the first time, and when the run began: what it held before has no
    grace. What is not told is not judged: what is in force stays, what only began is forgotten.

    >>> at = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> books = Books(open={UUID(int=1): at}, told={}, equity=Decimal(100))
    >>> rule, state = ReconciliationRule(), Reconciliation()
    >>> for seconds in (0, 30, 60):
    ...     then = at + timedelta(seconds=seconds)
    ...     words = [Word("alpha", then, frozenset(), None)]
    ...     state = judged(state, words, books, rule, now=then)
    ...     print(state.state(rule).value)
    AGREES
    AGREES
    BLOCKED
    """
    seen = dict(_positions(words, books, began)) | dict(_balance(held, words, books, rule))
    kept = {
        key
        for key in {finding.key for finding in held.in_force} | held.accepted
        if key not in seen and not _is_judged(key, words, books)
    }
    before = {finding.key: finding for finding in held.findings}
    findings = [
        _finding(key, sight, before.get(key), rule, now=now)
        for key, sight in seen.items()
        if key not in held.accepted
    ]
    findings += [before[key] for key in kept if key in before]
    return Reconciliation(
        findings=tuple(sorted(findings, key=_turn)[:FINDINGS_MAX]),
        accepted=frozenset(held.accepted & (seen.keys() | kept)),
        accepted_difference=held.accepted_difference,
    )


def summary(findings: Iterable[Finding], *, accepted_difference: Decimal = _ZERO) -> str:
    """Return what differs in a line: the first few of each kind, or both balances.

    >>> at = datetime.fromisoformat("2026-03-01T12:00:00Z")
    >>> key = Key(Kind.BALANCE)
    >>> summary([Finding(key=key, since=at, in_force=True, told=Decimal(9), ledger=Decimal(8))])
    'balance: bots tell 9, the ledger 8'
    """
    ids: dict[Kind, list[str]] = {}
    parts = []
    for finding in findings:
        if finding.key.position is not None:
            ids.setdefault(finding.key.kind, []).append(str(finding.key.position))
        else:
            also = f", {accepted_difference:f} of it accepted" if accepted_difference else ""
            parts.append(
                f"balance: bots tell {finding.told:f}, the ledger {finding.ledger:f}{also}"
            )
    for kind, found in ids.items():
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        parts.append(f"{len(found)} {kind.value}: {', '.join(found[:_SHOWN])}{more}")
    text = "; ".join(parts)
    return text if len(text) <= _SUMMARY_MAX else f"{text[: _SUMMARY_MAX - 3]}..."


class _Sight(NamedTuple):
    """A difference as it shows now; all that it rests on was told at `told_at` or later."""

    told_at: datetime
    at_once: bool = False
    told: Decimal | None = None
    ledger: Decimal | None = None


def _positions(
    words: Sequence[Word], books: Books, began: tuple[str, datetime] | None
) -> Iterator[tuple[Key, _Sight]]:
    held: dict[UUID, datetime] = {}
    for word in words:
        for position in word.positions or ():
            held[position] = max(word.heard_at, held.get(position, word.heard_at))
    bot, started_at = began or ("", None)
    carried = {p for word in words if word.bot == bot for p in word.positions or ()}
    for position, told_at in held.items():
        kind, at = books.told[position]
        if kind is not None:
            is_earlier = at is None or (started_at is not None and at < started_at)
            yield Key(kind, position), _Sight(told_at, at_once=is_earlier and position in carried)
    if _tell_all(words):
        # Nobody holds it: that was so when the last of them had spoken.
        told_at = min(word.heard_at for word in words)
        for position in books.open.keys() - held.keys():
            # Who spoke before it was claimed cannot hold it yet.
            at_once = started_at is not None and books.open[position] < min(started_at, told_at)
            yield Key(Kind.MISSING, position), _Sight(told_at, at_once=at_once)


def _balance(
    held: Reconciliation, words: Sequence[Word], books: Books, rule: ReconciliationRule
) -> Iterator[tuple[Key, _Sight]]:
    newest = max((w for w in words if w.equity is not None), key=_when, default=None)
    if newest is None or newest.equity is None:
        return
    with localcontext(prec=_EXACT_DIGITS):
        apart = abs(newest.equity - held.accepted_difference - books.equity)
        if apart > rule.balance_tolerance * max(books.equity, _ZERO):
            sight = _Sight(newest.heard_at, told=newest.equity, ledger=books.equity)
            yield Key(Kind.BALANCE), sight


def _is_judged(key: Key, words: Sequence[Word], books: Books) -> bool:
    """Say whether what is told now speaks of `key`, so that it has ended where it is not seen."""
    if key.kind is Kind.BALANCE:
        return any(word.equity is not None for word in words)
    assert key.position is not None
    if _tell_all(words) or any(key.position in (word.positions or ()) for word in words):
        return True
    return key.kind is Kind.MISSING and key.position not in books.open


def _finding(
    key: Key, sight: _Sight, before: Finding | None, rule: ReconciliationRule, *, now: datetime
) -> Finding:
    since = now if before is None else before.since
    # Two heartbeats at least, and all who were asked have spoken again since.
    outlasted = sight.told_at > since and sight.told_at - since >= rule.grace
    was = before is not None and before.in_force
    in_force = was or outlasted or sight.at_once
    return Finding(key=key, since=since, in_force=in_force, told=sight.told, ledger=sight.ledger)


def _turn(finding: Finding) -> tuple[bool, datetime, str]:
    # The oldest first: a difference must not be pushed out by those that come after it.
    return not finding.in_force, finding.since, f"{finding.key.kind} {finding.key.position}"


def _tell_all(words: Sequence[Word]) -> bool:
    return bool(words) and all(word.positions is not None for word in words)


def _when(word: Word) -> tuple[datetime, str]:
    return word.heard_at, word.bot


def _less(one: Decimal, other: Decimal) -> Decimal:
    with localcontext(prec=_EXACT_DIGITS):
        return one - other


def _key(kind: str, position: str | None) -> Key:
    return Key(Kind(kind), None if position is None else UUID(position))
