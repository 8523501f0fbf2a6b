"""SessionRevoked, heard by each replica through its own exclusive queue: no inbox, nothing kept."""

import asyncio
from datetime import datetime
from functools import partial
from typing import cast
from uuid import UUID

import aiormq
import structlog
from aiormq.abc import DeliveredMessage
from clinic_shared.broker import BrokerUnavailableError, Connection, broker_errors
from clinic_shared.envelope import MalformedMessageError, decode_body
from clinic_shared.health import Health
from clinic_shared.loops import keep_running, pause
from clinic_shared.metrics import LOOP_FAILURES
from clinic_shared.topology import event_exchange
from pydantic import AwareDatetime, BaseModel, ValidationError

from clinic_gateway.tokens import Revocations

log = structlog.get_logger()

NAME = "revocations"
ROUTING_KEY = "identity.session-revoked.v1"
WATCH_SECONDS = 0.5


class _SessionRevoked(BaseModel):
    """Without a session, all of the principal's are meant."""

    principal_id: UUID
    session_id: UUID | None
    issued_before: AwareDatetime
    expires_at: AwareDatetime


class RevocationFeed:
    def __init__(self, amqp_url: str, revocations: Revocations, health: Health) -> None:
        self._connection = Connection(amqp_url, name="clinic-gateway revocations")
        self._revocations = revocations
        self._health = health
        health.report(NAME, "not listening yet")

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until told to stop; after an outage, with a new queue."""
        await keep_running(NAME, stop, partial(self._listen, stop), self._health)
        await self._connection.close()

    async def _listen(self, stop: asyncio.Event) -> None:
        channel = await self._connection.channel()
        try:
            underlay = cast("aiormq.Channel", await channel.get_underlay_channel())
            with broker_errors():
                declared = await underlay.queue_declare("", exclusive=True, auto_delete=True)
                queue = cast("str", declared.queue)
                await underlay.queue_bind(queue, event_exchange("identity"), routing_key=ROUTING_KEY)
                consuming = await underlay.basic_consume(queue, self._receive, no_ack=True)
            self._health.report(NAME, None)
            while not stop.is_set():
                if underlay.is_closed or consuming.consumer_tag not in underlay.consumers:
                    raise BrokerUnavailableError
                await pause(stop, WATCH_SECONDS)
        finally:
            self._connection.discard(channel)

    async def _receive(self, delivery: DeliveredMessage) -> None:
        try:
            revoked = _SessionRevoked.model_validate(decode_body(delivery.body, None))
        except (MalformedMessageError, ValidationError) as error:
            LOOP_FAILURES.labels(loop=NAME).inc()
            log.warning("revocation_unreadable", error_class=type(error).__name__)
            return
        self._apply(revoked)

    def _apply(self, revoked: _SessionRevoked) -> None:
        until: datetime = revoked.expires_at
        if revoked.session_id is not None:
            self._revocations.revoke_session(revoked.session_id, until=until)
        else:
            self._revocations.revoke_account(
                revoked.principal_id, issued_before=revoked.issued_before, until=until
            )
