"""`clinic dead-letters` against a real gateway and real services."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from clinic_shared import contracts, held, inbox
from clinic_shared.dead_letters.run_worker import RedriveWorker
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Event
from clinic_shared.held import RawMessage
from clinic_shared.ids import uuid7

from .conftest import LOGIN, Clinic, Deployment

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
        asyncio.create_task(RedriveWorker(service.runtime).run(stop))
        for service in deployment.services.values()
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
    "--queue referrals.patients": {("referrals", 1)},
    "--type patients.patient-updated.v1": set(),
    "--since 2199-01-01": set(),
    "--until 2199-01-01 --service referrals": {("referrals", 1)},
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


async def test_later_versions_are_shown_with_what_became_of_them(
    clinic: Clinic, deployment: Deployment
) -> None:
    """The producer says what it published since, the consumer what took effect of it."""
    event_type = "scheduling.service-defined.v1"
    example, subject, now = (
        contracts.load().examples(event_type)[0],
        uuid7(),
        deployment["scheduling"].clock.now(),
    )
    async with deployment["scheduling"].runtime.database.transaction() as tx:
        published = [
            tx.emit(Event(type=event_type, subject=subject, aggregate_version=n, data=example["data"]))
            for n in (1, 2, 3)
        ]
    envelope = Envelope(
        id=published[0],
        source="scheduling",
        type=event_type,
        subject=subject,
        time=now,
        recorded_at=now,
        aggregate_version=1,
        partition_key=subject,
        correlation_id=uuid7(),
    )
    message = RawMessage(queue="referrals.scheduling", headers=envelope.headers(), body=encode_body({}, None))
    async with deployment["referrals"].runtime.database.transaction() as tx:
        await held.park(tx, message, cause="planted", error="PlantedError here")
        await inbox.claim(tx, consumer="referrals", event_id=published[1], event_type=event_type)
    shown = await clinic("dead-letters", "show", "referrals", 1)
    assert [(words[0], " ".join(words[2:])) for words in shown.words[-2:]] == [
        ("2", "applied"),
        ("3", "on its way"),
    ]
    letter = (await clinic("dead-letters", "show", "referrals", 1, "--json")).document
    assert [(one["version"], one["disposition"]) for one in letter["later"]] == [
        (2, "applied"),
        (3, "on its way"),
    ]


async def test_what_comes_from_outside_cannot_steer_the_terminal(clinic: Clinic, park: Park) -> None:
    await park("scheduling", cause="\x1b[2J[bold]cause")
    listed = await clinic("dead-letters", "ls")
    assert "\x1b" not in listed.out
    assert "[2J[bold]cause" in listed.out


@pytest.mark.usefixtures("_workers")
async def test_a_redriven_message_that_can_be_handled_now_takes_effect(clinic: Clinic, park: Park) -> None:
    await park("scheduling", body=good_body())
    redriven = await clinic("dead-letters", "redrive", "scheduling", 1)
    assert (redriven.status, redriven.out) == (0, "Of 1 message 1 took effect.\n")
    assert (await clinic("dead-letters", "ls")).out == "None.\n"
    gone = await clinic("dead-letters", "show", "scheduling", 1)
    assert (gone.status, "took effect" in gone.err) == (1, True)


@pytest.mark.usefixtures("_workers")
async def test_what_fails_again_is_reported_and_waits_by_its_new_cause(clinic: Clinic, park: Park) -> None:
    await park("scheduling", body=good_body())
    await park("scheduling")
    redriven = await clinic("dead-letters", "redrive", "scheduling", "--cause", "planted", "--rate", 1000)
    assert (redriven.status, redriven.err) == (1, "")
    assert redriven.out.startswith("Of 2 messages 1 took effect, 1 failed again.\n")
    assert "ValidationError" in redriven.out
    listed = (await clinic("dead-letters", "ls", "--json")).document
    assert [(item["id"], item["state"]) for item in listed["items"]] == [(2, "parked")]
    assert listed["groups"][0]["cause"] != "planted"


async def test_a_run_can_be_left_alone_watched_and_cancelled(clinic: Clinic, park: Park) -> None:
    """Nobody works here, so the run goes on for ever."""
    await park("scheduling")
    await park("scheduling", cause="other")
    begun = await clinic("dead-letters", "redrive", "scheduling", "--cause", "planted", "--wait", 0)
    assert (begun.status, begun.out.splitlines()[0]) == (3, "Of 1 message 1 wait for their turn.")
    listed = (await clinic("dead-letters", "ls")).out
    assert "0 of 1 handled" in listed
    assert [
        words[2] for words in (await clinic("dead-letters", "ls")).words if words[:2] == ["scheduling", "1"]
    ] == ["redriving"]
    (run,) = (await clinic("dead-letters", "runs", "--json")).document["runs"]
    shown = await clinic("dead-letters", "runs", run["run_id"], "--service", "scheduling")
    assert shown.words[-1][:2] == ["1", "waiting"]
    cancelled = await clinic("dead-letters", "cancel", "scheduling", run["run_id"])
    assert (cancelled.status, cancelled.out) == (0, "Of 1 message 1 were not handled.\n")
    again = await clinic("dead-letters", "cancel", "scheduling", run["run_id"])
    assert (again.status, again.err) == (1, "dead-letters: The run is cancelled.\n")


async def test_a_dry_run_answers_and_changes_nothing(clinic: Clinic, park: Park) -> None:
    await park("scheduling", cause="passed", body=good_body())
    await park("scheduling", cause="lasting")
    for chosen, status, outcome in (
        (["1"], 0, "applied"),
        (["--cause", "passed"], 0, "applied"),
        (["2"], 1, "failed"),
        (["--cause", "lasting"], 1, "failed"),
        (["99"], 1, "unknown"),
    ):
        tried = await clinic("dead-letters", "dry-run", "scheduling", *chosen, "--json")
        assert (tried.status, [one["outcome"] for one in tried.document["outcomes"]]) == (status, [outcome])
    assert "would fail" in (await clinic("dead-letters", "dry-run", "scheduling", 2)).out
    listed = await clinic("dead-letters", "ls", "--json")
    assert [row["state"] for row in listed.document["items"]] == ["parked", "parked"]


async def test_a_discarded_message_stays_with_its_reason(clinic: Clinic, park: Park) -> None:
    await park("scheduling")
    discarded = await clinic("dead-letters", "discard", "scheduling", 1, "--reason", "planted by a test")
    assert (discarded.status, discarded.out) == (0, "1 message of scheduling discarded.\n")
    letter = (await clinic("dead-letters", "show", "scheduling", 1, "--json")).document
    assert (letter["state"], letter["reason"]) == ("discarded", "planted by a test")
    again = await clinic("dead-letters", "discard", "scheduling", 1, "--reason", "planted by a test")
    assert (again.status, "1 are discarded" in again.err) == (1, True)


async def test_many_are_discarded_only_when_a_second_person_agrees(
    clinic: Clinic, park: Park, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(21):
        await park("scheduling")
    asked = await clinic(
        "dead-letters", "discard", "scheduling", "--cause", "planted", "--reason", "a bad day"
    )
    assert asked.status == 3
    approve = asked.words[-1][1:]
    assert " ".join(approve) in (await clinic("dead-letters", "ls")).out
    alone = await clinic(*approve)
    assert (alone.status, alone.err) == (1, "dead-letters: Somebody else must decide about this\n")
    monkeypatch.setenv("CLINIC_LOGIN", "colleague@example.org")
    together = await clinic(*approve)
    assert (together.status, together.out) == (0, "21 messages of scheduling discarded.\n")
    (decision,) = (await clinic("dead-letters", "decisions", "scheduling", "--json")).document
    assert (decision["state"], decision["count"]) == ("approved", 21)
    assert (await clinic("dead-letters", "reject", "scheduling", approve[-1], "--reason", "late")).status == 1


@pytest.mark.usefixtures("_workers")
async def test_a_steward_sees_and_mends_what_an_operator_redrives(
    clinic: Clinic, park: Park, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await park("scheduling")
    refused = await clinic("dead-letters", "reveal", "scheduling", 1, "--reason", "curious")
    assert (refused.status, CANARY in refused.err) == (1, False)
    monkeypatch.setenv("CLINIC_LOGIN", "steward@example.org")
    revealed = await clinic("dead-letters", "reveal", "scheduling", 1, "--reason", "what is wrong with it")
    assert revealed.document["private"] == {"name": CANARY}
    file = tmp_path / "body.json"
    file.write_text('{"data": {"wrong": true}}')
    wrong = await clinic(
        "dead-letters", "correct", "scheduling", 1, "--body", file, "--reason", "the registry sent nonsense"
    )
    assert (wrong.status, "/data/patient_id (required)" in wrong.err) == (1, True)
    example = contracts.load().examples(EVENT)[0]
    file.write_text(json.dumps({"data": example["data"], "private": example["private"]}))
    mended = await clinic(
        "dead-letters", "correct", "scheduling", 1, "--body", file, "--reason", "the registry sent nonsense"
    )
    assert (mended.status, mended.out.split(".")[0]) == (0, "Message 2 stands for 1")
    assert (await clinic("dead-letters", "redrive", "scheduling", 2)).status == 1
    monkeypatch.setenv("CLINIC_LOGIN", LOGIN)
    assert (await clinic("dead-letters", "redrive", "scheduling", 2)).out == "Of 1 message 1 took effect.\n"
    original = (await clinic("dead-letters", "show", "scheduling", 1, "--json")).document
    assert (original["state"], original["superseded_by"]) == ("superseded", 2)


REFUSALS = (
    (["show", "scheduling", "99"], 1, "no such resource"),
    (["discard", "scheduling", "99", "--reason", "none"], 1, "99 took effect meanwhile, or never were"),
    (["redrive", "scheduling", "99"], 1, "Nothing was decided"),
    (["redrive", "scheduling", "--cause", "none"], 1, "no parked message of cause none"),
    (["show", "billing", "1"], 1, "isn't installed"),
    (["show", "../ledger", "1"], 1, "answered 400"),
    (["redrive", "billing", "1"], 1, "isn't installed"),
    (["redrive", "scheduling"], 2, "name ids or a cause"),
    (["redrive", "scheduling", "1", "--cause", "planted"], 2, "name ids or a cause"),
    (["discard", "scheduling", "1"], 2, "--reason"),
    (["correct", "scheduling", "1", "--reason", "none"], 2, "--patch"),
    (["runs", "0199"], 2, "--service"),
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
