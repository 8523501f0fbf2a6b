"""`clinic dead-letters` against a real gateway and real services."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from clinic_shared import contracts, held
from clinic_shared.dead_letters import HeldWorker
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.held import RawMessage
from clinic_shared.ids import uuid7

from .conftest import Clinic, Deployment

EVENT = "patients.patient-registered.v1"
CANARY = "Канарейкина"
Park = Callable[..., Awaitable[UUID]]


@pytest.fixture
def park(deployment: Deployment) -> Park:
    """Return a function that parks a message with a service, and returns the event's id."""

    async def park(
        service: str, *, cause: str = "planted", body: dict[str, Any] | None = None, is_held: bool = False
    ) -> UUID:
        patient_id, event_id, now = uuid7(), uuid7(), deployment[service].clock.now()
        envelope = Envelope(
            id=event_id,
            source="patients",
            type=EVENT,
            subject=patient_id,
            time=now,
            recorded_at=now,
            aggregate_version=1,
            partition_key=patient_id,
            correlation_id=uuid7(),
        )
        data = {"wrong": True} if body is None else body | {"patient_id": str(patient_id)}
        message = RawMessage(
            queue=f"{service}.patients", headers=envelope.headers(), body=encode_body(data, {"name": CANARY})
        )
        keep = held.hold if is_held else held.park
        async with deployment[service].runtime.database.transaction() as tx:
            await keep(tx, message, cause=cause, error="PlantedError here")
        return event_id

    return park


@pytest.fixture
async def _workers(deployment: Deployment) -> Any:
    """Let the services handle redriven messages."""
    stop = asyncio.Event()
    running = [
        asyncio.create_task(HeldWorker(service.runtime).run(stop)) for service in deployment.services.values()
    ]
    yield
    stop.set()
    await asyncio.gather(*running)


def good_body() -> dict[str, Any]:
    return dict(contracts.load().examples(EVENT)[0]["data"])


async def test_what_waits_is_listed_by_cause_and_row_by_row(clinic: Clinic, park: Park) -> None:
    first = await park("scheduling")
    await park("scheduling")
    await park("referrals", is_held=True)
    listed = await clinic("dead-letters", "ls")
    assert (listed.status, listed.err) == (0, "")
    assert ["2", "scheduling", "parked", "planted"] in [words[:4] for words in listed.words]
    assert ["1", "referrals", "held", "planted"] in [words[:4] for words in listed.words]
    assert any(
        words[:3] == ["scheduling", "1", "parked"] and words[-1] == str(first) for words in listed.words
    )


async def test_nothing_waits(clinic: Clinic, deployment: Deployment) -> None:
    listed = await clinic("dead-letters", "ls")
    assert (listed.status, listed.out, listed.err) == (0, "None.\n", "")


CHOICES: dict[str, set[tuple[str, int]]] = {
    "": {("scheduling", 1), ("scheduling", 2), ("referrals", 1)},
    "--service scheduling": {("scheduling", 1), ("scheduling", 2)},
    "--state held": {("scheduling", 2)},
    "--cause other": {("referrals", 1)},
    "--state discarded": set(),
    "--limit 1": {("scheduling", 1), ("referrals", 1)},
    "--limit 1 --service scheduling": {("scheduling", 1)},
    "--limit 1 --all": {("scheduling", 1), ("scheduling", 2), ("referrals", 1)},
    "--limit 1 --all --service scheduling": {("scheduling", 1), ("scheduling", 2)},
}


async def test_options_choose(clinic: Clinic, park: Park, subtests: pytest.Subtests) -> None:
    await park("scheduling")
    await park("scheduling", is_held=True)
    await park("referrals", cause="other")
    for options, found in CHOICES.items():
        with subtests.test(options):
            listed = await clinic("dead-letters", "ls", "--json", *options.split())
            assert {(row["service"], row["id"]) for row in listed.document["items"]} == found
            assert listed.document["is_cut"] == ("--limit" in options and "--all" not in options)
            assert {group["service"] for group in listed.document["groups"]} >= {name for name, _ in found}


async def test_a_cut_list_says_so(clinic: Clinic, park: Park) -> None:
    await park("scheduling")
    await park("scheduling")
    assert "--all" in (await clinic("dead-letters", "ls", "--limit", 1)).out
    assert "--all" not in (await clinic("dead-letters", "ls", "--limit", 2)).out


async def test_a_message_is_shown_without_its_content(clinic: Clinic, park: Park) -> None:
    event_id = await park("scheduling")
    for options in ([], ["--json"]):
        shown = await clinic("dead-letters", "show", "scheduling", 1, *options)
        assert shown.status == 0
        assert str(event_id) in shown.out
        assert "PlantedError here" in shown.out
        assert CANARY not in shown.out


async def test_what_comes_from_outside_cannot_steer_the_terminal(clinic: Clinic, park: Park) -> None:
    await park("scheduling", cause="\x1b[2J[bold]cause")
    listed = await clinic("dead-letters", "ls")
    assert "\x1b" not in listed.out
    assert "[2J[bold]cause" in listed.out


@pytest.mark.usefixtures("_workers")
async def test_a_redriven_message_that_can_be_handled_now_takes_effect(clinic: Clinic, park: Park) -> None:
    await park("scheduling", body=good_body())
    redriven = await clinic("dead-letters", "redrive", "scheduling", 1)
    assert (redriven.status, redriven.words[1]) == (0, ["1", "took", "effect", "-"])
    assert (await clinic("dead-letters", "ls")).out == "None.\n"


@pytest.mark.usefixtures("_workers")
async def test_a_redriven_message_that_fails_again_is_reported(clinic: Clinic, park: Park) -> None:
    await park("scheduling")
    redriven = await clinic("dead-letters", "redrive", "scheduling", 1, 99, "--json")
    assert redriven.status == 1
    assert [item["outcome"] for item in redriven.document["items"]] == ["failed again", "unknown"]
    assert "ValidationError" in redriven.document["items"][0]["error"]
    assert (await clinic("dead-letters", "ls", "--json")).document["items"][0]["state"] == "parked"


async def test_all_of_a_cause_are_redriven_and_no_others(clinic: Clinic, park: Park) -> None:
    await park("scheduling")
    await park("scheduling")
    await park("scheduling", cause="other")
    redriven = await clinic("dead-letters", "redrive", "scheduling", "--cause", "planted")
    assert (redriven.status, redriven.out.split()[0]) == (0, "2")
    listed = await clinic("dead-letters", "ls", "--json")
    assert [row["state"] for row in listed.document["items"]] == ["held", "held", "parked"]


async def test_a_dry_run_answers_and_changes_nothing(clinic: Clinic, park: Park) -> None:
    await park("scheduling", cause="passed", body=good_body())
    await park("scheduling", cause="lasting")
    for chosen, status, outcome in (
        (["1"], 0, "would succeed"),
        (["--cause", "passed"], 0, "would succeed"),
        (["2"], 1, "would fail"),
        (["--cause", "lasting"], 1, "would fail"),
    ):
        tried = await clinic("dead-letters", "redrive", "scheduling", *chosen, "--dry-run", "--json")
        assert (tried.status, [item["outcome"] for item in tried.document["items"]]) == (status, [outcome])
    listed = await clinic("dead-letters", "ls", "--json")
    assert [row["state"] for row in listed.document["items"]] == ["parked", "parked"]


async def test_a_discarded_message_stays_with_its_reason(clinic: Clinic, park: Park) -> None:
    await park("scheduling")
    discarded = await clinic("dead-letters", "discard", "scheduling", 1, "--reason", "planted by a test")
    assert (discarded.status, discarded.out) == (0, "Message 1 of scheduling is discarded.\n")
    letter = (await clinic("dead-letters", "show", "scheduling", 1, "--json")).document
    assert (letter["state"], letter["reason"]) == ("discarded", "planted by a test")
    again = await clinic("dead-letters", "discard", "scheduling", 1, "--reason", "planted by a test")
    assert (again.status, again.err) == (1, "dead-letters: message 1 of scheduling was discarded before\n")


REFUSALS = (
    (["show", "scheduling", "99"], 1, "answered 404"),
    (["discard", "scheduling", "99", "--reason", "none"], 1, "answered 404"),
    (["show", "billing", "1"], 1, "isn't installed"),
    (["show", "../ledger", "1"], 1, "answered 400"),
    (["redrive", "billing", "1"], 1, "isn't installed"),
    (["redrive", "scheduling"], 2, "name ids or a cause"),
    (["redrive", "scheduling", "1", "--cause", "planted"], 2, "name ids or a cause"),
    (["discard", "scheduling", "1"], 2, "--reason"),
    (["ls", "--state", "lost"], 2, "held"),
)


@pytest.mark.usefixtures("deployment")
async def test_what_cannot_be_done_is_said_in_words(clinic: Clinic, subtests: pytest.Subtests) -> None:
    for arguments, status, says in REFUSALS:
        with subtests.test(" ".join(arguments)):
            refused = await clinic("dead-letters", *arguments)
            assert (refused.status, refused.out) == (status, "")
            assert says in refused.err
            assert "Traceback" not in refused.err
