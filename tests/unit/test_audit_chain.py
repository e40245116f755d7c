"""The chain's arithmetic, and what each kind of tampering looks like on chains made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.audit_chain import (
    MISFITS_MAX,
    Anchor,
    AnchorCheck,
    AuditId,
    AuditRow,
    FindingKind,
    Link,
    Seal,
    Stray,
    anchor_of,
    chain_findings,
    chain_hash,
    parsed_anchor,
    row_hash,
    sealed,
    stray_findings,
)
from bandit.core.errors import InvalidInput

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = AuditRow(
    id=AuditId(7),
    at="2026-03-01T12:00:00.000000Z",
    actor="cli:ann",
    action="HALT",
    subject="btc",
    details='{"version": 3}',
)
# By printf and sha256sum: the array of the columns, then 32 zero bytes, that hash, 1 and the time.
ROW_HASH = "3c4117dab29b9dcca21db99b6e005e4891e6c1f7ebd9d606c4b100ea42fb96e3"
FIRST_HASH = "3909bbae9aa30c2af677568d3194fdc1155dfc7180b10966b2d9ed443513cf14"

Found = tuple[str, int | None, int | None]


def chain(ids: Iterable[int] = (1, 2, 4, 3, 7, 8)) -> list[Link]:
    """A lawful chain over rows with a gap in their ids and one that was committed late."""
    rows = [replace(ROW, id=AuditId(i), details=f'{{"n": {i}}}') for i in ids]
    return [
        Link(seal=seal, row=row)
        for seal, row in zip(sealed(rows, after=None, now=NOON), rows, strict=True)
    ]


def found(links: Iterable[Link]) -> list[Found]:
    return [(f.kind.value, f.audit_id, f.sequence) for f in chain_findings(links)]


def with_row(link: Link, **columns: str) -> Link:
    assert link.row is not None
    return replace(link, row=replace(link.row, **columns))


def test_hashes_are_those_that_other_tools_compute() -> None:
    assert row_hash(ROW).hex() == ROW_HASH
    (first,) = sealed([ROW], after=None, now=NOON)
    assert (first.sequence, first.audit_id, first.row_hash.hex()) == (1, 7, ROW_HASH)
    assert first.chain_hash.hex() == FIRST_HASH


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=5, max_size=5),
    st.integers(1, 2**53 - 1),
)
def test_text_of_a_row_is_rfc_8785(columns: list[str], number: int) -> None:
    at, actor, action, subject, details = columns
    row = AuditRow(
        id=AuditId(number), at=at, actor=actor, action=action, subject=subject, details=details
    )
    assert row.text.encode() == rfc8785.dumps([number, *columns])


def test_chain_goes_on_where_it_was_left() -> None:
    whole = [link.seal for link in chain([1, 2, 3])]
    rows = [link.row for link in chain([1, 2, 3]) if link.row is not None]
    first = list(sealed(rows[:1], after=None, now=NOON))
    assert [*first, *sealed(rows[1:], after=first[-1], now=NOON)] == whole
    assert list(sealed([], after=first[-1], now=NOON)) == []


@pytest.mark.parametrize("what", ["before", "row", "sequence", "sealed_at"])
def test_everything_a_seal_says_is_under_its_hash(what: str) -> None:
    said = {"before": bytes(32), "row": b"r" * 32, "sequence": 5, "sealed_at": NOON}
    other = {
        "before": b"x" * 32,
        "row": b"s" * 32,
        "sequence": 6,
        "sealed_at": NOON + timedelta(microseconds=1),
    }
    assert chain_hash(**said) != chain_hash(**(said | {what: other[what]}))  # type: ignore[arg-type]


def test_a_chain_nobody_touched_has_no_findings() -> None:
    assert found([]) == []
    assert found(chain()) == []


@pytest.mark.parametrize("column", ["at", "actor", "action", "subject", "details"])
def test_an_edited_row_is_named(column: str) -> None:
    links = chain()
    links[2] = with_row(links[2], **{column: "else"})
    assert found(links) == [("edited", 4, 3)]


def test_a_deleted_row_is_named() -> None:
    links = chain()
    links[0] = replace(links[0], row=None)
    assert found(links) == [("deleted", 1, 1)]


def test_swapped_rows_are_named_both_and_told_from_edited_ones() -> None:
    links = chain()
    one, other = links[1].row, links[4].row
    assert one is not None
    assert other is not None
    links[1] = with_row(links[1], details=other.details)
    links[4] = with_row(links[4], details=one.details)
    links[5] = with_row(links[5], details="else")
    assert found(links) == [("swapped", 2, 2), ("swapped", 7, 5), ("edited", 8, 6)]


def test_a_row_edited_together_with_its_hash_breaks_the_chain_there() -> None:
    links = chain()
    edited = with_row(links[3], details="else")
    assert edited.row is not None
    links[3] = replace(edited, seal=replace(edited.seal, row_hash=row_hash(edited.row)))
    assert found(links) == [("broken", 3, 4)]


def test_a_seal_rewritten_whole_breaks_the_chain_after_it() -> None:
    links = chain()
    edited = with_row(links[3], details="else")
    assert edited.row is not None
    (seal,) = sealed([edited.row], after=links[2].seal, now=NOON)
    links[3] = Link(seal=seal, row=edited.row)
    assert found(links) == [("broken", 7, 5)]


def test_seals_that_changed_places_break_the_chain() -> None:
    links = chain()
    second, third = links[1], links[2]
    links[1] = replace(third, seal=replace(third.seal, sequence=2))
    links[2] = replace(second, seal=replace(second.seal, sequence=3))
    assert found(links) == [("broken", 4, 2), ("broken", 2, 3), ("broken", 3, 4)]


def test_missing_seals_are_named_by_their_sequences() -> None:
    links = chain()
    assert found(links[:2] + links[4:]) == [("deleted", None, 3)]
    (finding,) = chain_findings(links[:2] + links[4:])
    assert str(finding) == "deleted: sequence 3: the seals 3 to 4 are gone"


def test_a_fork_is_two_seals_of_one_sequence() -> None:
    links = chain()
    other = replace(ROW, id=AuditId(9))
    (forged,) = sealed([other], after=links[1].seal, now=NOON)
    fork = [*links[:3], Link(seal=forged, row=other)]
    assert found(fork) == [("forged", 9, 3)]


def test_more_changed_rows_than_are_compared_are_all_named() -> None:
    links = [with_row(link, details="else") for link in chain(range(1, 3 * MISFITS_MAX))]
    assert found(links) == [("edited", n, n) for n in range(1, 3 * MISFITS_MAX)]


def test_rows_without_a_seal() -> None:
    cases = [(True, True), (True, False), (False, True)]
    strays = [
        Stray(audit_id=AuditId(i), is_there=is_there, waits=waits)
        for i, (is_there, waits) in enumerate(cases)
    ]
    assert [(f.kind.value, f.audit_id) for f in stray_findings(strays)] == [
        ("forged", 1),
        ("deleted", 2),
    ]


# Anchors


def judged(
    seals: list[Seal], anchors: list[Anchor | None]
) -> tuple[list[tuple[str, int | None]], AnchorCheck]:
    hashes = {seal.sequence: seal.chain_hash for seal in seals}
    check = AnchorCheck(head=len(seals))
    for anchor in anchors:
        check.compare(anchor, None if anchor is None else hashes.get(anchor.sequence))
    return [(f.kind.value, f.sequence) for f in check.findings()], check


def test_anchors_that_agree_in_any_order_and_repeatedly() -> None:
    seals = [link.seal for link in chain()]
    anchors = [anchor_of(seals[i]) for i in (1, 5, 3, 3)]
    findings, check = judged(seals, [*anchors, None])
    assert findings == []
    assert check.agreeing == anchor_of(seals[5])
    assert check.torn_lines == 1


def test_a_chain_made_anew_contradicts_the_first_anchor_after_the_change() -> None:
    links = chain()
    anchors: list[Anchor | None] = [anchor_of(links[i].seal) for i in (4, 1, 3, 5)]
    rows = [with_row(link, details="else") if n == 2 else link for n, link in enumerate(links)]
    anew = list(sealed([link.row for link in rows if link.row], after=None, now=NOON))
    assert found(Link(seal=s, row=link.row) for s, link in zip(anew, rows, strict=True)) == []
    findings, check = judged(anew, anchors)
    assert findings == [("rehashed", 4)]
    assert check.agreeing == anchor_of(links[1].seal)


def test_a_tail_that_was_cut_off_is_missed_by_its_anchor() -> None:
    seals = [link.seal for link in chain()]
    anchors: list[Anchor | None] = [anchor_of(seal) for seal in seals]
    assert judged(seals[:4], anchors)[0] == [("truncated", 6)]
    assert judged([], anchors)[0] == [("truncated", 6)]


def test_a_chain_without_any_anchor_says_so() -> None:
    seals = [link.seal for link in chain()]
    assert judged(seals, [])[0] == [("unanchored", 6)]
    assert judged(seals, [None])[0] == [("unanchored", 6)]
    assert judged([], []) == ([], AnchorCheck(head=0))


def test_a_line_gives_the_anchor_back() -> None:
    anchor = anchor_of(chain()[0].seal)
    assert parsed_anchor(anchor.line) == anchor


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:-1],
        lambda _: "",
        lambda _: "null",
        lambda _: "[1]",
        lambda line: line.replace('"sequence": 1', '"sequence": 0'),
        lambda line: line.replace('"sequence": 1', '"sequence": true'),
        lambda line: line.replace('"sequence": 1', '"sequence": "1"'),
        lambda line: line.replace('"chain_hash": "', '"chain_hash": "00'),
        lambda line: line.replace("chain_hash", "hash"),
        lambda line: line.replace("+00:00", ""),
        lambda line: line.replace("2026", "1926"),
        lambda _: "[" * 100_000,
    ],
)
def test_a_line_that_holds_no_anchor_is_torn(spoil: object) -> None:
    assert callable(spoil)
    assert parsed_anchor(spoil(anchor_of(chain()[0].seal).line)) is None


def test_an_anchor_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="sequence: must be 1 or more"):
        Anchor(sequence=0, chain_hash=bytes(32), sealed_at=NOON)
    with pytest.raises(InvalidInput, match="chain_hash: must have 32 bytes"):
        Anchor(sequence=1, chain_hash=bytes(31), sealed_at=NOON)


def test_a_finding_is_told_under_the_names_of_the_columns() -> None:
    (finding,) = chain_findings([replace(chain()[0], row=None)])
    assert finding.kind is FindingKind.DELETED
    assert finding.to_json() == {
        "kind": "deleted",
        "audit_id": 1,
        "sequence": 1,
        "message": "the row that was sealed is gone",
    }
