"""`clinic trace`: any id leads to the chain of events around it, across services, without a word about a patient."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from clinic_shared import contracts
from clinic_shared.consumer import apply
from clinic_shared.context import Context
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Event, Origin, event_log
from clinic_shared.held import RawMessage, park
from clinic_shared.ids import uuid7
from sqlalchemy import select

from .conftest import Clinic, Deployment

BOOKED, CONFIRMED = "scheduling.appointment-booked.v1", "scheduling.appointment-confirmed.v1"
ACCEPTED, CREATED = "referrals.referral-accepted.v1", "referrals.referral-created.v1"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Story:
    """A booking that a referral follows: made once, with ids of every kind."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.patient, self.appointment, self.referral = uuid7(), uuid7(), uuid7()
        self.request = uuid7()

    async def emit(
        self, event_type: str, subject: UUID, version: int = 1, *, cause: UUID | None = None, **context: Any
    ) -> UUID:
        known: dict[str, Any] = {
            "correlation_id": self.request,
            "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        } | context
        example = contracts.load().examples(event_type)[0]
        service = self._deployment[event_type.partition(".")[0]]
        async with service.runtime.database.transaction(Context(causation_id=cause, **known)) as tx:
            return tx.emit(
                Event(
                    type=event_type,
                    subject=subject,
                    aggregate_version=version,
                    data=example["data"],
                    private=example.get("private"),
                    patient_id=self.patient,
                )
            )

    async def envelope(self, event_id: UUID) -> Envelope:
        async with self._deployment["scheduling"].runtime.database.transaction() as tx:
            row = await tx.fetch_one(select(event_log).where(event_log.c.event_id == event_id))
        assert row is not None
        return Envelope(
            id=row.event_id,
            source="scheduling",
            type=row.type,
            subject=row.subject,
            time=row.occurred_at,
            recorded_at=row.recorded_at,
            aggregate_version=row.aggregate_version,
            partition_key=row.partition_key,
            correlation_id=row.correlation_id,
            origin=Origin.LIVE,
        )

    async def tell(self) -> None:
        self.booked = await self.emit(BOOKED, self.appointment)
        example = contracts.load().examples(BOOKED)[0]
        body = encode_body(example["data"], example.get("private"))
        await apply(self._deployment["referrals"].runtime, await self.envelope(self.booked), body)
        self.accepted = await self.emit(ACCEPTED, self.referral, cause=self.booked)
        self.confirmed = await self.emit(
            CONFIRMED, self.appointment, 2, correlation_id=uuid7(), traceparent=None
        )
        await self.emit(CREATED, uuid7(), correlation_id=uuid7(), traceparent=None)  # of the same patient


@pytest.fixture
async def story(deployment: Deployment) -> Story:
    made = Story(deployment)
    await made.tell()
    return made


def flat(nodes: list[dict[str, Any]], depth: int = 0) -> list[tuple[int, str]]:
    """Return depth and type, in the order in which they are printed."""
    return [
        found for node in nodes for found in ((depth, node["type"]), *flat(node["consequences"], depth + 1))
    ]


WHOLE = [(0, BOOKED), (1, ACCEPTED), (1, CONFIRMED)]


@pytest.mark.parametrize("kind", ["appointment", "booked", "request", "referral", "accepted"])
async def test_an_id_of_any_kind_leads_to_the_whole_chain(kind: str, clinic: Clinic, story: Story) -> None:
    asked = await clinic("trace", getattr(story, kind), "--json")
    assert (asked.status, asked.err) == (0, "")
    assert flat(asked.document["chain"]) == WHOLE


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("given", [TRACE, f"00-{TRACE}-00f067aa0ba902b7-01", TRACE.upper()])
async def test_a_trace_leads_to_the_whole_chain(given: str, clinic: Clinic) -> None:
    asked = await clinic("trace", given, "--json")
    assert flat(asked.document["chain"]) == WHOLE


async def test_a_patient_leads_to_everything_about_them(clinic: Clinic, story: Story) -> None:
    asked = await clinic("trace", story.patient, "--json")
    assert flat(asked.document["chain"]) == [*WHOLE, (0, CREATED)]


async def test_it_says_who_applied_an_event_and_who_has_not(
    clinic: Clinic, story: Story, deployment: Deployment
) -> None:
    asked = await clinic("trace", story.appointment, "--json")
    (booked,) = asked.document["chain"]
    (effect,) = booked["effects"]
    assert (effect["service"], effect["disposition"]) == ("referrals", "applied")
    assert effect["delay_ms"] >= 0
    confirmed = booked["consequences"][1]
    assert confirmed["not_yet_applied_by"] == ["referrals"]
    runtime = deployment["referrals"].runtime
    async with runtime.database.transaction() as tx:
        headers = (await story.envelope(story.confirmed)).headers()
        message = RawMessage(queue="referrals.scheduling", headers=headers, body=b"{}")
        await park(tx, message, cause="abc123", error="KeyError")
    printed = (await clinic("trace", story.appointment)).out
    assert "applied by referrals +" in printed
    assert "parked by referrals" in printed
    assert "KeyError (dead letter referrals 1)" in printed
    assert "not yet applied by referrals" not in printed


async def test_the_tree_is_readable(clinic: Clinic, story: Story) -> None:
    lines = (await clinic("trace", story.booked)).out.splitlines()
    assert lines[0] == f"journey {story.request}  trace {TRACE}"
    assert f"  {BOOKED}  version 1  event {story.booked}" in lines[1]
    assert any("├─ +" in line and ACCEPTED in line for line in lines)
    assert any("└─ +" in line and CONFIRMED in line for line in lines)


async def test_no_payload_is_shown(clinic: Clinic, story: Story) -> None:
    example = contracts.load().examples(BOOKED)[0]
    for asked in (await clinic("trace", story.patient), await clinic("trace", story.patient, "--json")):
        for value in (example.get("private") or {}).values():
            assert str(value) not in asked.out


@pytest.mark.usefixtures("deployment")
async def test_an_unknown_id_is_a_sentence_and_status_1(clinic: Clinic) -> None:
    for unknown in (uuid4(), uuid4().hex):
        asked = await clinic("trace", unknown)
        assert (asked.status, asked.out) == (1, "")
        assert f"no service knows an event by the id {unknown}" in asked.err


@pytest.mark.usefixtures("deployment")
async def test_what_is_no_id_is_said_to_be_none(clinic: Clinic) -> None:
    asked = await clinic("trace", "appointment-17")
    assert (asked.status, asked.out) == (1, "")
    assert "that is no id" in asked.err


async def test_a_service_that_does_not_answer_is_named(
    clinic: Clinic, story: Story, deployment: Deployment
) -> None:
    await deployment.stop("referrals")
    asked = await clinic("trace", story.booked)
    assert asked.status == 0
    assert "referrals didn't answer" in asked.err


async def test_a_long_chain_is_whole(clinic: Clinic, story: Story) -> None:
    for version in range(3, 263):
        await story.emit(CONFIRMED, story.appointment, version, correlation_id=uuid7(), traceparent=None)
    asked = await clinic("trace", story.appointment, "--json")
    assert len(flat(asked.document["chain"])) == len(WHOLE) + 260
