"""Events in: what a service subscribes to, and how one message takes effect exactly once.

A handler is called inside the message's transaction, whose first statement is the inbox; what it
changes, emits and audits commits with the inbox row or not at all. Deliveries come from `deliveries.py`.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from clinic_shared import inbox, tracing
from clinic_shared.context import Context
from clinic_shared.crash import crash_point, mutated
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope, decode_body
from clinic_shared.held import KeyIsWaitingError, is_waiting

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

Handler = Callable[[Transaction, Envelope, Any], Awaitable[None]]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Awaitable[None]])


class Disposition(StrEnum):
    """What became of a message that was handed to `apply`."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"


class UnknownEventTypeError(Exception):
    """No handler for this type or version: parked, since a newer release may know it."""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """One event type, the part of its payload this service reads, and what it does with it."""

    event_type: str
    payload_model: type[BaseModel]
    handler: Handler


class Handlers:
    """The subscriptions of one service.

    @handlers.on("patients.patient-registered.v1")
    async def remember_patient(tx: Transaction, envelope: Envelope, payload: PatientRegistered) -> None: ...

    The payload's model is the handler's third annotation. It is validated from the event's `data` and
    `private` taken together, so private fields must be optional: they are gone after an erasure.
    """

    def __init__(self, service_name: str) -> None:
        self.service_name = service_name
        self.subscriptions: dict[str, Subscription] = {}

    def on(self, *event_types: str) -> Callable[[AnyHandler], AnyHandler]:
        """Subscribe a handler to one or several event types."""

        def register(handler: AnyHandler) -> AnyHandler:
            model = _payload_model(handler)
            for event_type in event_types:
                if event_type in self.subscriptions:
                    raise ValueError(f"two handlers for {event_type}")
                self.subscriptions[event_type] = Subscription(
                    event_type=event_type, payload_model=model, handler=handler
                )
            return handler

        return register

    def subscription(self, event_type: str) -> Subscription:
        """Return the subscription. Raises UnknownEventTypeError."""
        try:
            return self.subscriptions[event_type]
        except KeyError:
            raise UnknownEventTypeError(event_type) from None


def _payload_model(handler: Callable[..., Awaitable[None]]) -> type[BaseModel]:
    parameters = list(inspect.signature(handler, eval_str=True).parameters.values())
    model = parameters[2].annotation if len(parameters) == 3 else None  # noqa: PLR2004  # tx, envelope, payload
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{handler.__qualname__} must be (tx, envelope, payload: <pydantic model>)")
    if model.model_config.get("extra") == "forbid":
        raise TypeError(f"{model.__qualname__} forbids fields that a later version of the event may add")
    return model


async def apply(runtime: "Runtime", envelope: Envelope, body: bytes, *, in_turn: bool = False) -> Disposition:
    """Let one event take effect, once, in one transaction. Raises what the handler raises.

    With `in_turn`, raises KeyIsWaitingError when earlier messages of the key are held.
    """
    with tracing.processing(envelope, consumer=runtime.service.name) as span:
        async with runtime.database.transaction(context_of(envelope)) as tx:
            if in_turn and await is_waiting(tx, envelope.partition_key):
                raise KeyIsWaitingError
            disposition = await take_effect(tx, runtime.service.handlers, envelope, body)
        span.tell("clinic.disposition", disposition)
        return disposition


async def take_effect(tx: Transaction, handlers: Handlers, envelope: Envelope, body: bytes) -> Disposition:
    """Let one event take effect in a transaction that the caller commits."""
    subscription = handlers.subscription(envelope.type)
    payload = subscription.payload_model.model_validate(decode_body(body, envelope.seal))
    fresh = await inbox.claim(tx, consumer=tx.service, event_id=envelope.id, event_type=envelope.type)
    if not fresh and not mutated("inbox-off"):
        return Disposition.DUPLICATE
    crash_point("consumer.effect.before")
    await subscription.handler(tx, envelope, payload)
    return Disposition.APPLIED


def context_of(envelope: Envelope) -> Context:
    """Return the context of what this event causes."""
    return Context(
        correlation_id=envelope.correlation_id,
        causation_id=envelope.id,
        traceparent=envelope.traceparent,
        origin=envelope.origin,
    )
