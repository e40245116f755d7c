"""The connections that commit decisions: asynchronous, one statement and one commit a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from bandit.core.errors import InvalidInput, LedgerUnavailable
from bandit.core.sizing import Claim
from bandit.storage import claims
from bandit.storage.assignments import COMMIT, AssignmentBatch, StoredAssignment
from bandit.storage.claims import ClaimVerdict
from bandit.storage.engine import REACHABLE, libpq_url, refusal_of, session_options
from bandit.storage.locks import BATCH_IDLE_SECONDS_MAX, WRITER_NAME

STATEMENT_SECONDS = 2
_OPTIONS = (
    "-c timezone=UTC "
    f"-c statement_timeout={STATEMENT_SECONDS}s "
    # A frozen client must not keep a gate shut against a halt.
    f"-c idle_in_transaction_session_timeout={BATCH_IDLE_SECONDS_MAX}s"
)


class DecisionWriter:
    """One writing connection, made when it is first needed and again after it was lost.

    While a statement is under way its connection is the statement's alone, which gives it back.
    """

    def __init__(self, url: str) -> None:
        """Write to the ledger at `url`, an SQLAlchemy URL."""
        self._url = libpq_url(url)
        self._options = session_options(url, _OPTIONS)
        self._connection: AsyncConnection[Any] | None = None
        self._left = 0

    async def assign(self, batch: AssignmentBatch) -> dict[UUID, StoredAssignment]:
        """Store a batch; see `bandit.storage.assignments.commit`."""
        found = await self._rows(COMMIT, batch.parameters())
        return {row[0]: StoredAssignment._make(row) for row in found}

    async def claim(self, asked: Sequence[Claim], *, now: datetime) -> dict[UUID, ClaimVerdict]:
        """Claim decisions; see `bandit.storage.claims.commit`."""
        return claims.by_id(await self._rows(claims.COMMIT, claims.parameters(asked, now=now)))

    def abandon(self) -> None:
        """Close the connection; one that does not answer, once whoever waits for it is told."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None
        self._left += 1

    async def _rows(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        connection, left = self._connection, self._left
        self._connection = None
        try:
            if connection is None or connection.closed:
                connection = await self._connected()
                if left != self._left:
                    raise LedgerUnavailable("nobody waits for this connection any more")
            cursor = await connection.execute(statement, values, prepare=True)
            return await cursor.fetchall()
        except asyncio.CancelledError:
            # Abandoned: else its socket, and a session of the server, would stay.
            if connection is not None:
                connection.pgconn.finish()
            raise
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            rule = "must be something the ledger can hold"
            raise InvalidInput(field="value", rule=rule, found=_first_line(error)) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if connection is not None:
                connection.pgconn.finish()
            raise LedgerUnavailable(f"the ledger did not answer: {_first_line(error)}") from error
        except psycopg.Error as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            raise refusal from error
        finally:
            if connection is not None:
                self._give_back(connection, left)

    def _give_back(self, connection: AsyncConnection[Any], left: int) -> None:
        # Who was left may still come to its end: Python 3.11's `asyncio.wait_for`, within
        # psycopg, passes a cancellation over that comes together with what it waits for.
        if left != self._left:
            connection.pgconn.finish()
        elif not connection.closed:
            self._connection = connection

    async def _connected(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(
            self._url,
            autocommit=True,
            application_name=WRITER_NAME,
            options=self._options,
            **REACHABLE,
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "connection lost")
