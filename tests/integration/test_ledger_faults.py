"""What stands between the service and its ledger fails; nobody hangs, and nothing is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from api_service import application
from bots import PATIENCE_SECONDS, Bots, trading
from fault_proxy import FaultProxy
from ledger import CHALLENGER, NOON, UNGUARDED, open_btc
from sqlalchemy import Engine, make_url

from bandit.storage.engine import connect
from benchmarks.operation_check import faults
from benchmarks.operation_log import Phase, Verb
from liveops.api.server import POOL_SIZE, STATEMENT_SECONDS, administering, serving
from liveops.latch import Latch

CLIENTS = 4
HUNG_SECONDS = 30.0  # far beyond every timeout of the service: also a stalled machine has answered


@dataclass(kw_only=True)
class Traffic:
    """Clients of a service whose ledger lies behind a proxy, and an operator whose does not."""

    url: str
    admin: httpx.Client
    proxy: FaultProxy
    ledger: psycopg.Connection[Any]
    latch: Latch
    bots: Bots

    def await_more(self, phase: Phase, count: int = 12, *verbs: Verb) -> None:
        """Return once that many more operations of the bots ended so."""
        self.bots.await_more(phase, count, *verbs)


@pytest.fixture
def traffic(engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Traffic]:
    open_btc(engine, rules=UNGUARDED)
    there = make_url(database_url)
    socket = f"{there.query['host']}/.s.PGSQL.{there.query['port']}"
    latch = Latch(tmp_path / "KILLED")
    plain = there.set(drivername="postgresql").render_as_string(hide_password=False)
    with (
        FaultProxy(target=socket).running() as proxy,
        psycopg.connect(plain, autocommit=True) as ledger,
    ):
        through = there.set(host="127.0.0.1", port=proxy.port).difference_update_query(
            ["host", "port"]
        )
        behind = connect(
            through.render_as_string(hide_password=False),
            pool_size=POOL_SIZE,
            statement_seconds=STATEMENT_SECONDS,
        )
        with (
            serving(application(behind, latch=latch), host="127.0.0.1", port=0) as url,
            administering(application(engine, latch=latch), host="127.0.0.1", port=0) as admin,
            httpx.Client(base_url=admin, timeout=PATIENCE_SECONDS) as operator,
        ):
            with trading({f"c{number}": url for number in range(CLIENTS)}) as bots:
                bots.await_more(Phase.OK, 12)
                yield Traffic(
                    url=url, admin=operator, proxy=proxy, ledger=ledger, latch=latch, bots=bots
                )
                # Without a restart, once the fault is over.
                bots.await_more(Phase.OK, 12)
            assert faults(bots.entries(), ledger) == []
            assert bots.seconds_max() <= HUNG_SECONDS
        behind.dispose()


def halt(traffic: Traffic) -> int:
    path = f"/v1/experiments/btc/arms/{CHALLENGER}/halt"
    return traffic.admin.post(path, json={"reason": "the ledger is far away"}).status_code


def black_hole(proxy: FaultProxy) -> None:
    proxy.is_black_hole = True


def outage(proxy: FaultProxy) -> None:
    proxy.is_refusing = True
    proxy.cut()


@pytest.mark.parametrize("begin", [black_hole, outage])
def test_lost_network_is_answered_503_and_the_arm_can_still_be_halted(
    traffic: Traffic, begin: Callable[[FaultProxy], None]
) -> None:
    begin(traffic.proxy)
    traffic.await_more(Phase.UNKNOWN, 8)
    answer = httpx.post(
        f"{traffic.url}/v1/experiments/btc/assignments",
        json={"unit_id": "asked-meanwhile", "instrument": "BTCUSD"},
        timeout=HUNG_SECONDS,
    )
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["code"] == "ledger_unavailable"
    assert halt(traffic) == 200
    traffic.proxy.is_black_hole = traffic.proxy.is_refusing = False
    traffic.proxy.cut()


@pytest.mark.parametrize("fault", [FaultProxy.cut, FaultProxy.half_close])
def test_connections_that_break_are_made_again(
    traffic: Traffic, fault: Callable[[FaultProxy], None]
) -> None:
    for _ in range(5):
        fault(traffic.proxy)
        traffic.await_more(Phase.OK, 5)


def test_slow_ledger_slows_and_breaks_nothing(traffic: Traffic) -> None:
    traffic.proxy.delay_seconds = 0.1  # each way
    traffic.await_more(Phase.OK, 4, Verb.ASSIGN)
    assert halt(traffic) == 200
    traffic.proxy.delay_seconds = 0.0
    traffic.proxy.bytes_per_second = 50_000
    traffic.await_more(Phase.OK, 4, Verb.ASSIGN)
    traffic.proxy.bytes_per_second = float("inf")


def test_table_that_somebody_locked_is_answered_503(traffic: Traffic) -> None:
    with traffic.ledger.transaction():
        traffic.ledger.execute("LOCK TABLE assignments, outcomes IN ACCESS EXCLUSIVE MODE")
        traffic.await_more(Phase.UNKNOWN, 6)
    refused = [e.answer for e in traffic.bots.entries() if e.phase is Phase.UNKNOWN]
    assert all('"code":"ledger_unavailable"' in answer for answer in refused)


def wait_for_waiters(traffic: Traffic, count: int) -> None:
    """Return once so many sessions wait for the open transaction of our own."""
    ours = "transactionid = pg_current_xact_id()::xid"
    statement = f"SELECT count(*) FROM pg_locks WHERE {ours} AND NOT granted"
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 100):
        if traffic.ledger.execute(statement).fetchone() == (count,):
            return
        pause.wait(0.01)
    raise AssertionError(f"never {count} sessions wait")


def test_every_connection_held_by_slow_queries_is_answered_503(traffic: Traffic) -> None:
    many = 3 * POOL_SIZE
    slow = {"name": "slow", "kind": "tabnet", "sha": "bbbbbbbb"}
    with (
        httpx.Client(
            base_url=traffic.url, limits=httpx.Limits(max_connections=many), timeout=HUNG_SECONDS
        ) as client,
        ThreadPoolExecutor(many) as crowd,
    ):

        def registered(body: dict[str, str]) -> list[Future[httpx.Response]]:
            return [crowd.submit(client.post, "/v1/policies", json=body) for _ in range(many)]

        with traffic.ledger.transaction(force_rollback=True):
            insert = "INSERT INTO policies (name, kind, sha, metadata, registered_at) VALUES"
            traffic.ledger.execute(f"{insert} ('slow', 'tabnet', 'bbbbbbbb', '{{}}', now())")
            waiting = registered(slow)
            wait_for_waiters(traffic, POOL_SIZE)
            # Probes, bots and operators have connections of their own.
            body = {"unit_id": "asked-meanwhile", "instrument": "BTCUSD"}
            assert client.get("/ready").status_code == 200
            assert client.post("/v1/experiments/btc/assignments", json=body).status_code == 200
            assert halt(traffic) == 200
            answers = [future.result() for future in waiting]
        assert {(a.status_code, a.headers.get("Retry-After")) for a in answers} == {(503, "1")}
        assert {a.json()["code"] for a in answers} == {"ledger_unavailable"}
        said = Counter(a.json()["detail"] for a in answers)
        assert said["every connection to the ledger is in use"] > 0, said
        # The control, and no restart: with nothing in their way as many are served.
        served = Counter(future.result().status_code for future in registered(slow))
    assert served == {201: 1, 200: many - 1}


def test_latch_stops_answers_while_the_ledger_is_away(traffic: Traffic) -> None:
    outage(traffic.proxy)
    assert traffic.latch.set(reason="drill", actor="test", now=NOON)
    traffic.proxy.is_refusing = False
    traffic.await_more(Phase.FAIL, 4)
    refused = [e for e in traffic.bots.entries() if e.phase is Phase.FAIL]
    assert all('"code":"killed"' in e.answer for e in refused), refused
    traffic.latch.clear()
