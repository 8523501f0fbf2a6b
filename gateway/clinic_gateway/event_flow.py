"""`/v1/ops/event-flow`: the answers of all services joined to one map, services as nodes and subscriptions as edges.

What only both ends of an edge know together is worked out here: how many events of one are missing at the other.
A service that didn't answer stays on the map, with what the contracts and its neighbours say of it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from clinic_shared import event_flow
from clinic_shared.contracts import Contracts
from clinic_shared.event_flow import EventFlow
from pydantic import BaseModel, Field, ValidationError

NodeState = Literal["running", "no worker", "unreachable"]

Unaccounted = Annotated[
    int | None,
    Field(
        description="Published events of the settled day that neither took effect nor are held, parked or discarded; "
        "null when one end didn't answer"
    ),
]


class FlowNode(BaseModel):
    """A service. Figures are null when it didn't answer."""

    service: str
    state: NodeState
    workers: int | None = None
    outbox_pending: int | None = None
    outbox_oldest_seconds: float | None = None
    published_per_second: float | None = None
    applied_per_second: float | None = None
    held: int | None = None
    parked: int | None = None


class FlowType(BaseModel):
    """One event type on an edge. Its lag is what was published and neither applied nor kept, of the last day."""

    type: str
    per_second: float | None = None
    lag_events: int | None = None
    held: int | None = None
    parked: int | None = None
    unaccounted: Unaccounted = None


class FlowEdge(BaseModel):
    """A subscription: one queue, from a producer to a consumer. Figures are null when they can't be known."""

    producer: str
    consumer: str
    queue: str
    per_second: float | None = None
    lag_events: Annotated[int | None, Field(description="Messages in the queue, or counted at both ends")] = (
        None
    )
    lag_source: Annotated[
        Literal["broker", "counted"] | None, Field(description="Where `lag_events` comes from")
    ] = None
    lag_seconds: float | None = None
    held: int | None = None
    parked: int | None = None
    unaccounted: Unaccounted = None
    types: list[FlowType]


class UnreachableService(BaseModel):
    service: str
    reason: str


class EventFlowMap(BaseModel):
    services: list[FlowNode]
    subscriptions: list[FlowEdge]
    unreachable: list[UnreachableService]


def join(documents: Mapping[str, Any], unreachable: Mapping[str, str], known: Contracts) -> EventFlowMap:
    """Join what the services answered; `unreachable` are the others, with the reason."""
    flows, reasons = {}, dict(unreachable)
    for service, document in documents.items():
        try:
            flows[service] = EventFlow.model_validate(document)
        except ValidationError:
            reasons[service] = "not-an-event-flow"
    services = [name for name in known.services if name in flows or name in reasons]
    return EventFlowMap(
        services=[_node(name, flows.get(name)) for name in services],
        subscriptions=[edge for name in services for edge in _edges_into(name, flows, services, known)],
        unreachable=[UnreachableService(service=name, reason=reason) for name, reason in reasons.items()],
    )


def _node(service: str, flow: EventFlow | None) -> FlowNode:
    if flow is None:
        return FlowNode(service=service, state="unreachable")
    return FlowNode(
        service=service,
        state="running" if flow.workers else "no worker",
        **{name: getattr(flow, name) for name in FlowNode.model_fields if name not in {"service", "state"}},
    )


def _edges_into(
    consumer: str, flows: Mapping[str, EventFlow], services: Iterable[str], known: Contracts
) -> list[FlowEdge]:
    flow = flows.get(consumer)
    if flow is not None:
        return [_edge(consumer, flow, one, flows.get(one.producer)) for one in flow.subscriptions]
    return [
        FlowEdge(
            producer=producer,
            consumer=consumer,
            queue=f"{consumer}.{producer}",
            types=[
                FlowType(type=event.type)
                for event in known.consumed_by(consumer)
                if event.producer == producer
            ],
        )
        for producer in known.producers_of(consumer)
        if producer in services
    ]


def _edge(
    consumer: str, flow: EventFlow, subscription: event_flow.Subscription, producer: EventFlow | None
) -> FlowEdge:
    types = [_type(one, flow, producer) for one in subscription.types]
    counted = _sum(one.lag_events for one in types)
    lag = counted if subscription.messages is None else subscription.messages
    source: Literal["broker", "counted"] = "counted" if subscription.messages is None else "broker"
    return FlowEdge(
        producer=subscription.producer,
        consumer=consumer,
        queue=subscription.queue,
        per_second=subscription.per_second,
        lag_events=lag,
        lag_source=None if lag is None else source,
        lag_seconds=subscription.lag_seconds,
        held=subscription.held,
        parked=subscription.parked,
        unaccounted=_sum(one.unaccounted for one in types),
        types=types,
    )


def _type(one: event_flow.SubscribedType, flow: EventFlow, producer: EventFlow | None) -> FlowType:
    published = next((p for p in producer.publications if p.type == one.type), None) if producer else None
    lag = unaccounted = None
    if published is not None and producer is not None:
        # The two were asked at different moments: what was applied in between isn't less than nothing.
        lag = max(0, published.published_recently - one.applied_recently - one.kept_recently)
        if producer.accounted_until == flow.accounted_until:
            unaccounted = published.published_accounted - one.applied_accounted - one.kept_accounted
    return FlowType(
        type=one.type,
        per_second=one.per_second,
        lag_events=lag,
        held=one.held,
        parked=one.parked,
        unaccounted=unaccounted,
    )


def _sum(figures: Iterable[int | None]) -> int | None:
    """Add up; what is unknown in part is unknown as a whole."""
    total = 0
    for figure in figures:
        if figure is None:
            return None
        total += figure
    return total
