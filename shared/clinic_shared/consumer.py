"""Events in: what a service subscribes to, and how one message takes effect exactly once.

A handler is called inside the message's transaction, whose first statement is the inbox; what it
changes, emits and audits commits with the inbox row or not at all. Deliveries come from `deliveries.py`.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from clinic_shared import inbox, tracing
from clinic_shared.context import Context
from clinic_shared.contracts import PLATFORM
from clinic_shared.crash import crash_point, mutated
from clinic_shared.database import Transaction
from clinic_shared.envelope import Envelope, decode_body
from clinic_shared.projections import Kept, keep_in_read_model

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

Handler = Callable[[Transaction, Envelope, Any], Awaitable[None]]
Projector = Callable[[Envelope, Any], Sequence[Kept]]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Awaitable[None]])
Reader = Callable[[Transaction, Sequence[Any]], Awaitable[None]]
AnyProjector = TypeVar("AnyProjector", bound=Callable[..., Sequence[Kept]])


class Disposition(StrEnum):
    """What became of a message that was handed to `apply`."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"


class UnknownEventTypeError(Exception):
    """No handler for this type or version: held, since the next release, on its way here, may know it."""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """One event type, the part of its payload this service reads, and what it does with it.

    With a `projector`, that is all that the event does here, so its rows can be made again. `ahead` asks at once
    what the handlers of several such events would ask one by one.
    """

    event_type: str
    payload_model: type[BaseModel]
    handler: Handler
    projector: Projector | None = None
    ahead: Reader | None = None


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

    def on(self, *event_types: str, ahead: Reader | None = None) -> Callable[[AnyHandler], AnyHandler]:
        """Subscribe a handler to one or several event types.

        Where several events share a transaction, `ahead` is given their payloads before the first is handled, and
        leaves what it finds in `tx.known`. The handler must do without: it is also called for one event alone.
        """

        def register(handler: AnyHandler) -> AnyHandler:
            model = _payload_model(handler, ("tx", "envelope"))
            for event_type in event_types:
                self._add(
                    Subscription(event_type=event_type, payload_model=model, handler=handler, ahead=ahead)
                )
            return handler

        return register

    def project(self, *event_types: str) -> Callable[[AnyProjector], AnyProjector]:
        """Subscribe a pure function `(envelope, payload) -> rows to keep` to one or several event types.

        What is kept so can be rebuilt from the event logs; a handler's effects can't.
        """

        def register(projector: AnyProjector) -> AnyProjector:
            async def handler(tx: Transaction, envelope: Envelope, payload: Any) -> None:
                await keep_in_read_model(tx, projector(envelope, payload))

            model = _payload_model(projector, ("envelope",))
            for event_type in event_types:
                self._add(
                    Subscription(
                        event_type=event_type, payload_model=model, handler=handler, projector=projector
                    )
                )
            return projector

        return register

    def include(self, others: "Handlers") -> None:
        """Take over the subscriptions of another module of the service."""
        for subscription in others.subscriptions.values():
            self._add(subscription)

    def _add(self, subscription: Subscription) -> None:
        if subscription.event_type in self.subscriptions:
            raise ValueError(f"two handlers for {subscription.event_type}")
        self.subscriptions[subscription.event_type] = subscription

    def subscription(self, event_type: str) -> Subscription:
        """Return the subscription; every service has the platform's. Raises UnknownEventTypeError."""
        found = self.subscriptions.get(event_type) or platform_handlers.subscriptions.get(event_type)
        if found is None:
            raise UnknownEventTypeError(event_type)
        return found

    @property
    def projected_types(self) -> list[str]:
        """The event types that a rebuild needs."""
        return [name for name, subscription in self.subscriptions.items() if subscription.projector]


platform_handlers = Handlers(PLATFORM)
"""What every service does with what services ask of each other (`replay.py`)."""


def _payload_model(function: Callable[..., Any], before: Sequence[str]) -> type[BaseModel]:
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    model = parameters[-1].annotation if len(parameters) == len(before) + 1 else None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        expected = ", ".join((*before, "payload: <pydantic model>"))
        raise TypeError(f"{function.__qualname__} must be ({expected})")
    if model.model_config.get("extra") == "forbid":
        raise TypeError(f"{model.__qualname__} forbids fields that a later version of the event may add")
    return model


async def apply(runtime: "Runtime", envelope: Envelope, body: bytes, *, in_turn: bool = False) -> Disposition:
    """Let one event take effect, once, in one transaction. Raises what the handler raises.

    With `in_turn`, raises KeyIsWaitingError when earlier messages of the key are held.
    """
    with tracing.processing(envelope, consumer=runtime.service.name) as span:
        async with runtime.database.transaction(context_of(envelope)) as tx:
            disposition = await take_effect(tx, runtime.service.handlers, envelope, body, in_turn=in_turn)
        span.tell("clinic.disposition", disposition)
        return disposition


async def apply_together(
    runtime: "Runtime", messages: Sequence[tuple[Envelope, bytes]]
) -> list[tuple[Envelope, Disposition]]:
    """Let several events take effect in one transaction, in their order per key.

    Raises what any of them raises, or KeyIsWaitingError: then none has taken effect.
    """
    # Keys in one order, as all that lock several rows do; their events among themselves as they came.
    in_order = sorted(messages, key=lambda message: message[0].partition_key)
    done: list[tuple[Envelope, Disposition]] = []
    async with runtime.database.transaction() as tx:
        fresh = await _claim_in_turn(tx, [envelope for envelope, _ in in_order])
        calls = [_call(runtime.service.handlers, envelope, body) for envelope, body in in_order]
        await _read_ahead(tx, [call for call, (e, _) in zip(calls, in_order, strict=True) if e.id in fresh])
        for (envelope, _), call in zip(in_order, calls, strict=True):
            disposition = Disposition.APPLIED if envelope.id in fresh else Disposition.DUPLICATE
            fresh.discard(envelope.id)
            if disposition is Disposition.APPLIED or mutated("inbox-off"):
                tx.context = context_of(envelope)
                with tracing.processing(envelope, consumer=tx.service) as span:
                    await call(tx)
                    span.tell("clinic.disposition", disposition)
            done.append((envelope, disposition))
    return done


async def _read_ahead(tx: Transaction, calls: Sequence["_Call"]) -> None:
    payloads: dict[Reader, list[Any]] = {}
    for call in calls:
        if call.subscription.ahead is not None:
            payloads.setdefault(call.subscription.ahead, []).append(call.payload)
    for ahead, of_several in payloads.items():
        await ahead(tx, of_several)


async def take_effect(
    tx: Transaction, handlers: Handlers, envelope: Envelope, body: bytes, *, in_turn: bool = False
) -> Disposition:
    """Let one event take effect in a transaction that the caller commits."""
    if in_turn:
        fresh = bool(await _claim_in_turn(tx, [envelope]))
    else:
        fresh = await inbox.claim(tx, consumer=tx.service, event_id=envelope.id, event_type=envelope.type)
    call = _call(handlers, envelope, body)
    if not fresh and not mutated("inbox-off"):
        return Disposition.DUPLICATE
    await call(tx)
    return Disposition.APPLIED


async def _claim_in_turn(tx: Transaction, envelopes: Sequence[Envelope]) -> set[UUID]:
    return await inbox.claim_in_turn(
        tx,
        consumer=tx.service,
        types={envelope.id: envelope.type for envelope in envelopes},
        partition_keys={envelope.partition_key for envelope in envelopes},
    )


@dataclass(frozen=True)
class _Call:
    """An event whose handler only needs a transaction."""

    subscription: Subscription
    envelope: Envelope
    payload: Any

    async def __call__(self, tx: Transaction) -> None:
        crash_point("consumer.effect.before")
        await self.subscription.handler(tx, self.envelope, self.payload)


def _call(handlers: Handlers, envelope: Envelope, body: bytes) -> _Call:
    """Return what calls the event's handler. Raises what is wrong with the message itself."""
    subscription = handlers.subscription(envelope.type)
    payload = subscription.payload_model.model_validate(decode_body(body, envelope.seal))
    return _Call(subscription, envelope, payload)


def context_of(envelope: Envelope) -> Context:
    """Return the context of what this event causes."""
    return Context(
        correlation_id=envelope.correlation_id,
        causation_id=envelope.id,
        traceparent=envelope.traceparent,
        origin=envelope.origin,
    )
