"""The map of all services: what only both ends know together, and who is missing on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from clinic_gateway import event_flow
from clinic_shared import contracts
from clinic_shared.event_flow import EventFlow, Publication, SubscribedType, Subscription

if TYPE_CHECKING:
    from .conftest import Bearer, Reply, StartClinic

BOOKED = "scheduling.appointment-booked.v1"
UNTIL = "2026-03-02T06:00:00Z"


def _flow(service: str, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "service": service,
        "workers": 1,
        "silent_seconds": 1.0,
        "outbox_pending": 0,
        "outbox_oldest_seconds": 0.0,
        "held": 0,
        "parked": 0,
        "published_per_second": 0.0,
        "applied_per_second": 0.0,
        "accounted_until": UNTIL,
        "publications": [],
        "subscriptions": [],
    }
    return EventFlow.model_validate(given | changes).model_dump(mode="json")


def producer(*, recently: int = 10, accounted: int = 8, **changes: Any) -> dict[str, Any]:
    publication = Publication(
        type=BOOKED,
        consumers=["reporting"],
        published=100,
        published_recently=recently,
        published_accounted=accounted,
        per_second=0.5,
    )
    return _flow("scheduling", publications=[publication], **changes)


def consumer(*, recently: int = 10, accounted: int = 8, kept: int = 0, **changes: Any) -> dict[str, Any]:
    booked = SubscribedType(
        type=BOOKED,
        applied=100,
        applied_recently=recently,
        applied_accounted=accounted,
        kept_recently=kept,
        kept_accounted=kept,
        per_second=0.5,
        held=kept,
        parked=0,
    )
    given: dict[str, Any] = {"messages": 0, "lag_seconds": 0.0, **changes}
    subscription = Subscription(
        producer="scheduling",
        queue="reporting.scheduling",
        per_second=0.5,
        held=kept,
        parked=0,
        types=[booked],
        **given,
    )
    return _flow("reporting", subscriptions=[subscription])


def joined(*documents: dict[str, Any], **unreachable: str) -> event_flow.EventFlowMap:
    return event_flow.join(
        {document["service"]: document for document in documents}, unreachable, contracts.load()
    )


def test_an_edge_stands_between_its_producer_and_its_consumer() -> None:
    found = joined(producer(), consumer(messages=4, lag_seconds=2.5))
    assert [(node.service, node.state) for node in found.services] == [
        ("scheduling", "running"),
        ("reporting", "running"),
    ]
    (edge,) = found.subscriptions
    assert (edge.producer, edge.consumer, edge.queue) == ("scheduling", "reporting", "reporting.scheduling")
    assert (edge.lag_events, edge.lag_source, edge.lag_seconds, edge.per_second) == (4, "broker", 2.5, 0.5)


@pytest.mark.parametrize(("applied", "kept", "missing"), [(8, 0, 0), (6, 2, 0), (7, 0, 1)])
def test_what_was_published_and_neither_took_effect_nor_is_kept_is_unaccounted(
    applied: int, kept: int, missing: int
) -> None:
    (edge,) = joined(producer(), consumer(accounted=applied, kept=kept)).subscriptions
    assert edge.unaccounted == edge.types[0].unaccounted == missing


def test_ends_that_speak_of_different_days_are_not_compared() -> None:
    (edge,) = joined(producer(accounted_until="2026-03-02T07:00:00Z"), consumer(accounted=0)).subscriptions
    assert edge.unaccounted is None


def test_without_the_broker_lag_is_counted_at_both_ends() -> None:
    (edge,) = joined(producer(recently=10), consumer(recently=7, kept=1, messages=None)).subscriptions
    assert (edge.lag_events, edge.lag_source) == (2, "counted")
    (edge,) = joined(producer(recently=10), consumer(recently=11, messages=None)).subscriptions
    assert edge.lag_events == 0


def test_a_producer_that_does_not_answer_leaves_what_the_consumer_knows() -> None:
    found = joined(consumer(messages=None, lag_seconds=3.0), scheduling="service-down")
    (edge,) = found.subscriptions
    assert (edge.lag_events, edge.lag_source, edge.lag_seconds, edge.unaccounted) == (None, None, 3.0, None)
    assert [(one.service, one.reason) for one in found.unreachable] == [("scheduling", "service-down")]


def test_a_consumer_that_does_not_answer_stays_on_the_map_with_its_edges() -> None:
    found = joined(producer(), reporting="service-down")
    assert {node.service: node.state for node in found.services} == {
        "scheduling": "running",
        "reporting": "unreachable",
    }
    (edge,) = found.subscriptions
    assert (edge.producer, edge.consumer, edge.lag_events, edge.held) == (
        "scheduling",
        "reporting",
        None,
        None,
    )
    assert BOOKED in [one.type for one in edge.types]


def test_a_service_whose_workers_are_silent_says_so() -> None:
    (node,) = joined(producer(workers=0)).services
    assert node.state == "no worker"


def test_an_answer_of_another_shape_makes_a_service_unreachable() -> None:
    found = event_flow.join({"scheduling": {"service": "scheduling"}}, {}, contracts.load())
    assert [(one.service, one.reason) for one in found.unreachable] == [("scheduling", "not-an-event-flow")]


async def test_the_gateway_answers_with_the_map_and_describes_it(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply]
) -> None:
    folder = str(contracts.CONTRACTS_DIR)
    async with start_clinic("scheduling", "reporting", down=("billing",), contracts_dir=folder) as clinic:
        clinic["scheduling"].replies = [reply(document=producer())]
        clinic["reporting"].replies = [reply(document=consumer())]
        answer = await clinic.http.get("/v1/ops/event-flow", headers=bearer())
        described = (await clinic.http.get("/openapi.json")).json()
    found = event_flow.EventFlowMap.model_validate_json(answer.text)
    assert [
        (edge.producer, edge.consumer) for edge in found.subscriptions if edge.lag_events is not None
    ] == [("scheduling", "reporting")]
    assert [one.model_dump() for one in found.unreachable] == [
        {"service": "billing", "reason": "service-down"}
    ]
    content = described["paths"]["/v1/ops/event-flow"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/EventFlowMap"}
    assert {"EventFlowMap", "FlowNode", "FlowEdge"} <= set(described["components"]["schemas"])
    assert "/v1/ops/event-flow/{service}" in described["paths"]
