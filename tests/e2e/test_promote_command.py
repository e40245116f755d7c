"""`liveops promote` and `rollback`, as a person would use them."""

from __future__ import annotations

from pathlib import Path

from commands import script
from ledger import CHALLENGER, open_btc, traffic
from sqlalchemy import Engine

from bandit.service import reporting


def test_promote_and_rollback_say_who_is_the_champion(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    open_btc(engine)

    def liveops(*arguments: str) -> tuple[int, str, str]:
        done = script("liveops", *arguments, home=tmp_path, LIVEOPS_DATABASE_URL=database_url)
        return done.returncode, done.stdout, done.stderr

    why = ("--reason", "better for a quarter")
    said = f"{CHALLENGER} is the champion of btc"
    assert liveops("promote", "btc", "eee02a74", *why) == (0, f"{said} (90 % of traffic)\n", "")
    again = f"{said} already; nothing changed (90 % of traffic)\n"
    assert liveops("promote", "btc", CHALLENGER, *why) == (0, again, "")
    made = reporting.decision_history(engine, "btc")[0]
    assert (made.kind.value, made.reason) == ("PROMOTE", "better for a quarter")
    assert made.actor.startswith("cli:")
    _, decisions, _ = liveops("decisions", "btc")
    assert f"PROMOTE {CHALLENGER}: better for a quarter" in decisions

    why = ("--reason", "losing money")
    code, _, errors = liveops("rollback", "btc", "--to", "eee02a74", *why)
    assert (code, errors) == (
        1,
        f"invalid_transition: cannot roll back to {CHALLENGER}: "
        "earlier champions still there: prod\n",
    )
    assert liveops("rollback", "btc", *why) == (
        0,
        "prod is the champion of btc (100 % of traffic)\n",
        "",
    )
    assert traffic(engine) == {"prod": 1_000_000, CHALLENGER: 0}
    assert liveops("rollback", "btc", *why)[1] == (
        "prod is the champion of btc already; nothing changed (100 % of traffic)\n"
    )
    code, _, errors = liveops("promote", "btc", "eee02a74", *why)
    assert (code, errors.strip()) == (
        1,
        f"invalid_transition: cannot promote {CHALLENGER}: it is halted, not active",
    )
    assert liveops("promote", "btc", "eee02a74")[0] == 2
    assert liveops("promote", "eth", "eee02a74", *why)[0] == 2
