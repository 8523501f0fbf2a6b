"""The one place where a transaction opens and commits.

One request or one message is one transaction: state, events, audit records and timers commit
together or not at all, before the response or acknowledgement leaves.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, Executable, Row, func, literal, make_url, text, update
from sqlalchemy import event as pool_events
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from clinic_shared import contracts, tracing
from clinic_shared.audit import AuditEntry, canonical_record, leaf_hash
from clinic_shared.bulk import ForRows, InsertRows, document, given, names_of
from clinic_shared.clock import Clock, SystemClock
from clinic_shared.context import Context
from clinic_shared.crash import crash_point
from clinic_shared.deadlines import seconds_left
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.errors import PreconditionFailedError
from clinic_shared.event_sealing import sealed_events
from clinic_shared.events import Event, audit_outbox, event_log
from clinic_shared.ids import uuid7
from clinic_shared.metrics import POOL_WAIT_SECONDS
from clinic_shared.sealing import seal
from clinic_shared.timers import Timer, timer_table

PING_AFTER_SECONDS = 1.0
STATEMENT_SECONDS = 15
_IDLE_SINCE = "idle_since"
_SET_TIMER = InsertRows(
    timer_table,
    named={
        *("timer_id", "kind", "subject", "subject_version", "occurrence", "due_at", "next_attempt_at"),
        *("useful_until", "payload", "correlation_id", "causation_id", "traceparent"),
    },
    or_nothing=True,
)
_LOGGED = [column for column in event_log.columns if column.name not in {"recorded_at", "carries"}]
# The outbox's order is that in which they were emitted, which is theirs on the way.
_LOG_AND_QUEUE = text(f"""
    WITH given AS MATERIALIZED (
        SELECT * FROM {given(_LOGGED)}
    ), logged AS (
        INSERT INTO event ({names_of(_LOGGED)}) SELECT {names_of(_LOGGED)} FROM given
    )
    INSERT INTO outbox (event_id, partition_key) SELECT event_id, partition_key FROM given ORDER BY ordinality
""")  # noqa: S608  # names of our own
_KEEP_RECORDS = InsertRows(audit_outbox, named={"record", "leaf_hash"})

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class Transaction:
    """A use case's view of the database: statements, and what else is to commit with them.

    `now` is one value for the whole transaction, from the injected clock.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        service: str,
        now: datetime,
        context: Context,
        keyring: Keyring | None = None,
        clock_is_the_machines: bool = False,
    ) -> None:
        self.connection = connection
        self.clock_is_the_machines = clock_is_the_machines
        self.service = service
        self.keyring = keyring or Keyring(encrypting=False)
        self.now = now
        self.context = context
        self._events: list[dict[str, Any]] = []
        self._audit: list[dict[str, Any]] = []
        self._counts: list[Callable[[], None]] = []
        self._rows: dict[ForRows, list[Mapping[str, Any]]] = {}
        self._last: list[Callable[[], Awaitable[None]]] = []
        self.known: dict[Hashable, Any] = {}
        """What has been found out in this transaction and need not be asked again."""

    @property
    def shared_now(self) -> ColumnElement[datetime]:
        """The present of whatever one process leaves for another to take up: the database's.

        Processes on several machines have no clock in common, and one may be an hour wrong. A clock that
        was injected stands for both.
        """
        if self.clock_is_the_machines:
            return func.statement_timestamp()
        return literal(self.now, DateTime(timezone=True))

    async def execute(self, statement: Executable, parameters: Parameters = None) -> CursorResult[Any]:
        await self._write_rows()
        return await self.connection.execute(statement, parameters)

    async def fetch_one(self, statement: Executable, parameters: Parameters = None) -> Row[Any] | None:
        return (await self.execute(statement, parameters)).one_or_none()

    async def fetch_all(self, statement: Executable, parameters: Parameters = None) -> Sequence[Row[Any]]:
        return (await self.execute(statement, parameters)).all()

    def write_later(self, statement: ForRows, row: Mapping[str, Any]) -> None:
        """Write a row before the next statement, or the commit: with all others of the same statement at once.

        `statement` is one object, made once. What several messages leave is then written in one go.
        """
        self._rows.setdefault(statement, []).append(row)

    def write_last(self, write: Callable[[], Awaitable[None]]) -> None:
        """Call `write` before the commit: for what several messages leave and none of them reads."""
        self._last.append(write)

    async def _write_rows(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, {}
            for statement, of_one in rows.items():
                await self._write(statement, of_one)

    async def _write(self, statement: ForRows, rows: Sequence[Mapping[str, Any]]) -> None:
        for parameters in statement.parameters(rows):
            await self.connection.execute(statement.statement, parameters)

    def emit(self, event: Event) -> UUID:
        """Publish a fact when, and only when, this transaction commits. Returns the event's id."""
        event_id = uuid7()
        private, seal_name = seal(event.private)
        self._events.append(
            {
                "event_id": event_id,
                "type": event.type,
                "subject": event.subject,
                "aggregate_version": event.aggregate_version,
                "partition_key": event.partition_key,
                "patient_id": event.patient_id,
                "occurred_at": event.occurred_at or self.now,
                "origin": self.context.origin.value,
                "correlation_id": self.context.correlation_id,
                "causation_id": self.context.causation_id,
                "traceparent": tracing.created(
                    event.type,
                    event_id=event_id,
                    correlation_id=self.context.correlation_id,
                    traceparent=self.context.traceparent,
                ),
                "data": dict(event.data),
                "private": private,
                "seal": seal_name,
            }
        )
        return event_id

    def audit(self, entry: AuditEntry) -> None:
        """Record an act; it is kept exactly when the act is."""
        self.keep_record(
            canonical_record(entry, producer=self.service, recorded_at=self.now, context=self.context)
        )

    def keep_record(self, record: bytes) -> None:
        """Keep an audit record that was made before this transaction."""
        self._audit.append({"record": record, "leaf_hash": leaf_hash(record)})

    def count(self, once_committed: Callable[[], None]) -> None:
        """Let a metric count what this transaction does, when and only when it commits."""
        self._counts.append(once_committed)

    @staticmethod
    def require_version(current: int, expected: int | None) -> None:
        """Refuse a change of what the caller hasn't seen (If-Match). Raises PreconditionFailedError."""
        if expected is not None and expected != current:
            raise PreconditionFailedError(current_version=current)

    async def schedule(self, timer: Timer) -> None:
        """Set a durable timer; one with the same key stays as it is."""
        self.write_later(
            _SET_TIMER,
            {
                "timer_id": uuid7(),
                "kind": timer.kind,
                "subject": timer.subject,
                "subject_version": timer.subject_version,
                "occurrence": timer.occurrence,
                "due_at": timer.due_at,
                "next_attempt_at": timer.due_at,
                "useful_until": timer.useful_until,
                "payload": timer.payload,
                "correlation_id": self.context.correlation_id,
                "causation_id": self.context.causation_id,
                "traceparent": tracing.here() or self.context.traceparent,
            },
        )

    async def cancel_timers(self, kind: str, subject: UUID, *, before_version: int | None = None) -> None:
        """Cancel a subject's pending timers, optionally only those of older versions."""
        statement = update(timer_table).where(
            timer_table.c.kind == kind, timer_table.c.subject == subject, timer_table.c.state == "pending"
        )
        if before_version is not None:
            statement = statement.where(timer_table.c.subject_version < before_version)
        await self.execute(statement.values(state="cancelled", finished_at=self.now))

    async def flush(self) -> None:
        """Write what is still to be written. Called once, by `Database.transaction`, before commit."""
        for write in self._last:
            await write()
        await self._write_rows()
        if self._events:
            events = await sealed_events(self, self._events)
            await self.connection.execute(_LOG_AND_QUEUE, {"rows": document(events)})
        if self._audit:
            await self._write(_KEEP_RECORDS, self._audit)

    def forget(self) -> None:
        """Drop what was emitted, audited and known so far: its cause was rolled back to a savepoint."""
        self._rows.clear()
        self._last.clear()
        self.known.clear()
        self._events.clear()
        self._audit.clear()
        self._counts.clear()

    def committed(self) -> None:
        """Called once, by `Database.transaction`, after the commit."""
        for count in self._counts:
            count()

    @property
    def emitted(self) -> Sequence[Mapping[str, Any]]:
        return self._events

    @property
    def leaves_something(self) -> bool:
        """Whether an event or audit record commits here: a worker's idle look for work has neither."""
        return bool(self._events or self._audit)


def _remember_when(_: object, record: ConnectionPoolEntry) -> None:
    record.info[_IDLE_SINCE] = time.monotonic()


class Database:
    """A service's own database."""

    def __init__(
        self,
        sqlalchemy_url: str,
        *,
        service: str,
        pool_size: int = 8,
        pool_timeout_seconds: float = 5,
        clock: Clock | None = None,
        check_contracts: bool = False,
        keyring: Keyring | None = None,
    ) -> None:
        self.service = service
        self.keyring = keyring or Keyring(encrypting=False)
        self.clock = clock or SystemClock()
        self.check_contracts = check_contracts
        self.pool_size = pool_size
        self.waiting = 0
        """Transactions that wait for a connection."""
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout_seconds,
            pool_recycle=1800,
            # The connection that was used last knows the statements, and needs no ping.
            pool_use_lifo=True,
            connect_args={
                "connect_timeout": 3,
                "application_name": f"clinic-{service}",
                "options": f"-c statement_timeout={STATEMENT_SECONDS * 1000} -c lock_timeout=5000 "
                "-c idle_in_transaction_session_timeout=30000",
            },
        )

        self._arguments: dict[str, Any] = {}
        pool_events.listen(self.engine.sync_engine, "do_connect", self._connect_with_current)
        pool_events.listen(self.engine.sync_engine, "checkin", _remember_when)
        pool_events.listen(self.engine.sync_engine, "checkout", self._ping_after_idling)

    def use(self, sqlalchemy_url: str) -> None:
        """Connect there from now on (a changed password); connections that are open stay so."""
        _, arguments = self.engine.dialect.create_connect_args(make_url(sqlalchemy_url))
        self._arguments = dict(arguments)

    def _connect_with_current(
        self,
        _dialect: object,
        _record: object,
        _args: object,
        arguments: dict[str, Any],
    ) -> None:
        arguments.update(self._arguments)

    def _ping_after_idling(self, connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        """Find out that the server went away before a request does; in a busy pool nobody pays for it."""
        if time.monotonic() - record.info.get(_IDLE_SINCE, 0.0) < PING_AFTER_SECONDS:
            return
        dialect = self.engine.dialect
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            # The pool then drops the connection and makes another.
            raise DisconnectionError from error

    @asynccontextmanager
    async def transaction(self, context: Context | None = None) -> AsyncIterator[Transaction]:
        """Open a transaction, and commit it with everything it emitted. Any exception rolls it back.

        Raises DeadlineExceededError when the caller stopped waiting before there was a connection.
        """
        context = context or Context()
        with tracing.transaction():
            async with self._connection() as connection:
                left = seconds_left(context.deadline)
                transaction = Transaction(
                    connection,
                    service=self.service,
                    now=self.clock.now(),
                    context=context,
                    keyring=self.keyring,
                    clock_is_the_machines=isinstance(self.clock, SystemClock),
                )
                async with connection.begin():
                    if left is not None and left < STATEMENT_SECONDS:
                        # As long as the caller waits; a statement that goes on is work for nobody.
                        limit = f"SET LOCAL statement_timeout = {max(1, int(left * 1000))}"
                        await connection.exec_driver_sql(limit)
                    yield transaction
                    self._check(transaction)
                    await transaction.flush()
                    if transaction.leaves_something:
                        crash_point("commit.before")
                transaction.committed()
                if transaction.leaves_something:
                    crash_point("commit.after")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """Take a connection from the pool; how long that takes is what shows that the pool is too small."""
        async with AsyncExitStack() as stack:
            asked_at = time.perf_counter()
            self.waiting += 1
            try:
                connection = await stack.enter_async_context(self.engine.connect())
            finally:
                self.waiting -= 1
                POOL_WAIT_SECONDS.observe(time.perf_counter() - asked_at)
            yield connection

    @property
    def in_use(self) -> int:
        """How many connections of the pool are in use."""
        return cast("QueuePool", self.engine.pool).checkedout()

    def _check(self, transaction: Transaction) -> None:
        """In tests and development, refuse to emit what the contract doesn't describe."""
        if self.check_contracts:
            for fact in transaction.emitted:
                contracts.validate_event(fact["type"], fact["data"], fact["private"])

    async def dispose(self) -> None:
        await self.engine.dispose()
