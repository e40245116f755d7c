"""`liveops snapshot take|list|verify|restore|upload|prune`."""

from __future__ import annotations

import sys
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liveops.commands.options import (
    AsJson,
    ConfigFile,
    Demo,
    actor,
    ledger_app,
    loaded_settings,
    print_json,
)

if TYPE_CHECKING:
    from bandit.core.snapshots import SnapshotRecord
    from snapshots.manifest import Manifest

commands = typer.Typer(
    help="Daily snapshots of models, policies, settings and allocations.", no_args_is_help=True
)

Day = Annotated[
    datetime | None,
    typer.Option(
        "--date",
        formats=["%Y-%m-%d"],
        metavar="YYYY-MM-DD",
        help="Day (UTC) of the snapshot; today if left out.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")]


@commands.command("take")
def take(
    day: Day = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Take the day's snapshot, once: here, then in the bucket with what still waits for it.

    Exit 0 where the day has its snapshot, though it may wait for the bucket; 1 where something was
    left out of it because it is not sound.
    """
    from config.settings import describe
    from liveops import snapshotting

    rows = describe(loaded_settings(config))
    with ledger_app(config=config, demo=demo) as app:
        found = snapshotting.take(
            app,
            snapshotting.places_of(app),
            rows,
            day=snapshotting.day_of(app, _date(day)),
            actor=actor(),
            dry_run=dry_run,
        )
    if as_json:
        print_json(found.to_json())
    else:
        made = found.manifest
        sys.stdout.write(
            f"snapshot of {made.date} {_SAID[found.outcome.value]}: {len(made.entries)} files, "
            f"{made.size} bytes, left out {len(made.left_out)}\n"
        )
        for waiting in found.pending:
            sys.stdout.write(f"{waiting} waits for the bucket\n")
    for problem in [*found.problems, *found.manifest.left_out.values()]:
        sys.stderr.write(f"{problem}\n")
    if found.manifest.left_out:
        raise typer.Exit(1)


@commands.command("list")
def list_snapshots(demo: Demo = False, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List every snapshot there is, oldest first, and what the ledger knows of each.

    Of a bucket that cannot be reached, what the ledger remembers.
    """
    from bandit.core.snapshots import pending_uploads
    from bandit.service import snapshots as facts
    from liveops import snapshot_checking, snapshotting

    with ledger_app(config=config, demo=demo) as app:
        places, records = snapshotting.places_of(app), facts.noted(app.engine)
        there = {store.kind: snapshot_checking.dates_of(store, records) for store in places}
        waiting = pending_uploads(records) if places.bucket is not None else []
    found = {
        day: _stores(day, there, records)
        for day in sorted({day for days in there.values() for day in days})
    }
    if as_json:
        print_json(
            [
                {"date": day.isoformat(), "waits": day in waiting, "stores": stores}
                for day, stores in found.items()
            ]
        )
        return
    for day, stores in found.items():
        waits = ", waits for the bucket" if day in waiting else ""
        sys.stdout.write(f"{day}  {', '.join(stores)}{waits}\n")


@commands.command("verify")
def verify(
    day: Annotated[
        datetime | None,
        typer.Argument(formats=["%Y-%m-%d"], metavar="[DATE]", help="Day; every one if left out."),
    ] = None,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Read back every file of a snapshot in every store, artefacts as a service reads them.

    Exit 1 where one is damaged, or the day has none.
    """
    from liveops import snapshot_checking, snapshotting

    with ledger_app(config=config, demo=demo) as app:
        checked = snapshot_checking.verify(
            app, snapshotting.places_of(app), day=_date(day), actor=actor()
        )
    if as_json:
        print_json([each.to_json() for each in checked])
    else:
        for each in checked:
            said = "is whole" if each.problem is None else each.problem
            sys.stdout.write(f"{each.date} in {each.store}: {said}\n")
        if not checked:
            sys.stdout.write("there is no snapshot\n")
    is_missing = day is not None and not checked
    if is_missing or any(each.problem is not None for each in checked):
        raise typer.Exit(1)


@commands.command("restore")
def restore(
    day: Annotated[
        datetime, typer.Argument(formats=["%Y-%m-%d"], metavar="DATE", help="Day of the snapshot.")
    ],
    into: Annotated[
        Path | None, typer.Option("--into", help="New directory to write everything to.")
    ] = None,
    policies: Annotated[
        bool,
        typer.Option("--policies", help="Put artefacts that are missing here back in their place."),
    ] = False,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Read back a snapshot from the first store that has a sound one; works without a ledger.

    Nothing is written before all of it was held against its manifest.
    """
    from bandit.core.errors import InvalidInput
    from liveops import snapshot_checking

    if into is None and not policies and not dry_run:
        rule = "must be given, or --policies, or --dry-run"
        raise InvalidInput(field="--into", rule=rule, found="nothing")
    found = snapshot_checking.restore(
        config,
        day.date(),
        demo=demo,
        into=None if dry_run else into,
        policies=policies and not dry_run,
    )
    if as_json:
        print_json(_restored(found.manifest, found.store, found.artifacts))
        return
    sys.stdout.write(
        f"snapshot of {found.manifest.date} from {found.store}: "
        f"{len(found.manifest.entries)} files, {len(found.artifacts)} artefacts put back\n"
    )


@commands.command("upload")
def upload(
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Bring to the bucket what landed here while it was away; exit 1 while something waits."""
    from liveops import snapshotting

    with ledger_app(config=config, demo=demo) as app:
        found = snapshotting.upload(
            app, snapshotting.places_of(app), actor=actor(), dry_run=dry_run
        )
    if as_json:
        print_json(
            {
                "uploaded": [each.isoformat() for each in found.uploaded],
                "others": [each.isoformat() for each in found.others],
                "pending": [each.isoformat() for each in found.pending],
                "problems": found.problems,
            }
        )
    else:
        sys.stdout.write(f"uploaded {len(found.uploaded)}, waiting {len(found.pending)}\n")
    for problem in found.problems:
        sys.stderr.write(f"{problem}\n")
    if not found.is_done and not dry_run:
        raise typer.Exit(1)


@commands.command("prune")
def prune(
    day: Day = None,
    dry_run: DryRun = False,
    demo: Demo = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Remove what the retention lets go, and objects that no snapshot names.

    Never the newest snapshot, one that waits for the bucket, or the last that holds the artefact of
    a registered policy.
    """
    from liveops import snapshotting

    with ledger_app(config=config, demo=demo) as app:
        swept = snapshotting.prune(
            app,
            snapshotting.places_of(app),
            day=snapshotting.day_of(app, _date(day)),
            actor=actor(),
            dry_run=dry_run,
        )
    found = {
        store: {
            "removed": [each.isoformat() for each in one.dates],
            "objects": one.objects,
            "unfinished": one.unfinished,
        }
        for store, one in swept.items()
    }
    if as_json:
        print_json(found)
        return
    for store, one in swept.items():
        would = "would remove" if dry_run else "removed"
        sys.stdout.write(f"{store}: {would} {len(one.dates)} snapshots, {one.objects} objects\n")


_SAID = {
    "taken": "was taken",
    "already": "was taken before; nothing changed",
    "others": "was taken by another process meanwhile",
    "would_take": "would be taken",
}


def _date(chosen: datetime | None) -> date | None:
    return None if chosen is None else chosen.date()


def _stores(
    day: date, there: dict[str, list[date]], records: list[SnapshotRecord]
) -> dict[str, dict[str, Any]]:
    stores: dict[str, dict[str, Any]] = {}
    for kind, days in there.items():
        if day in days:
            known = [r for r in records if r.date == day and r.store.value == kind]
            stores[kind] = {
                "events": {r.event.value: r.recorded_at.isoformat() for r in known},
                "bytes": max((r.size for r in known), default=None),
            }
    return stores


def _restored(manifest: Manifest, store: str, artifacts: tuple[str, ...]) -> dict[str, Any]:
    return {
        "date": manifest.date.isoformat(),
        "store": store,
        "manifest_sha256": manifest.sha256,
        "files": len(manifest.entries),
        "bytes": manifest.size,
        "put_back": list(artifacts),
    }
