"""What all operator's commands share: who asks, what is told when nobody answers; and events and the ledger."""

from pathlib import Path
from uuid import UUID

import pytest
from clinic_local.environment import ADMIN_PASSWORD
from clinic_local.paths import write_private
from clinic_local.state import write_env
from clinic_shared import contracts
from clinic_shared.database import Transaction
from clinic_shared.events import Event
from clinic_shared.ids import uuid7
from clinic_shared.ledger import Dispositions, Ledger

from .conftest import PASSWORD, Clinic, Deployment

BOOKED, ACCEPTED = "scheduling.appointment-booked.v1", "referrals.referral-accepted.v1"


async def publish(deployment: Deployment, event_type: str, subject: UUID, *versions: int) -> None:
    service = deployment[event_type.partition(".")[0]]
    example = contracts.load().examples(event_type)[0]
    async with service.runtime.database.transaction() as tx:
        for version in versions:
            tx.emit(
                Event(
                    type=event_type,
                    subject=subject,
                    aggregate_version=version,
                    data=example["data"],
                    private=example.get("private"),
                )
            )


@pytest.mark.usefixtures("deployment")
async def test_nothing_is_known_of_an_unknown_subject(clinic: Clinic) -> None:
    asked = await clinic("events", "--subject", uuid7())
    assert (asked.status, asked.err) == (0, "")
    assert "No service published anything" in asked.out


async def test_a_subjects_events_come_from_all_services_in_order(
    clinic: Clinic, deployment: Deployment
) -> None:
    subject = uuid7()
    await publish(deployment, BOOKED, uuid7(), 1)
    await publish(deployment, BOOKED, subject, 1)
    await publish(deployment, ACCEPTED, subject, 1)
    await publish(deployment, BOOKED, subject, 2)
    asked = await clinic("events", "--subject", subject, "--json")
    found = [(event["service"], event["aggregate_version"]) for event in asked.document["items"]]
    assert found == [("scheduling", 1), ("referrals", 1), ("scheduling", 2)]
    table = (await clinic("events", "--subject", subject)).words
    assert [line[2:4] for line in table[1:]] == [[BOOKED, "1"], [ACCEPTED, "1"], [BOOKED, "2"]]


async def test_a_long_history_is_whole(clinic: Clinic, deployment: Deployment) -> None:
    subject = uuid7()
    await publish(deployment, BOOKED, subject, *range(1, 251))
    await publish(deployment, ACCEPTED, subject, 1)
    asked = await clinic("events", "--subject", subject, "--json")
    found = asked.document["items"]
    assert [event["aggregate_version"] for event in found if event["service"] == "scheduling"] == list(
        range(1, 251)
    )
    assert found[-1]["service"] == "referrals"


async def test_no_payload_is_shown(clinic: Clinic, deployment: Deployment) -> None:
    subject = uuid7()
    await publish(deployment, BOOKED, subject, 1)
    example = contracts.load().examples(BOOKED)[0]
    asked = await clinic("events", "--subject", subject, "--json")
    assert example["data"]["appointment_id"] not in asked.out
    assert {"data", "private"}.isdisjoint(asked.document["items"][0])


async def test_the_flow_names_services_and_what_waits_between_them(
    clinic: Clinic, deployment: Deployment
) -> None:
    await publish(deployment, BOOKED, uuid7(), 1)
    shown = await clinic("flow")
    scheduling = next(line for line in shown.words if line[:1] == ["scheduling"])
    assert scheduling[1:5] == ["no", "worker", "0", "1"]  # nothing relays here, so it stays in the outbox
    told = (await clinic("flow", "--json", "--all")).document
    assert {"producer": "scheduling", "consumer": "referrals"}.items() <= next(
        edge for edge in told["subscriptions"] if edge["queue"] == "referrals.scheduling"
    ).items()


async def test_a_service_that_is_away_stays_in_the_flow(clinic: Clinic, deployment: Deployment) -> None:
    await deployment.stop("referrals")
    shown = await clinic("flow")
    assert shown.status == 1
    assert ["referrals", "unreachable"] in [line[:2] for line in shown.words]
    assert "referrals didn't answer (service-down): its part is missing\n" in shown.err


def plant_ledger(deployment: Deployment, *, applied: int = 2, money: int | None = None) -> None:
    async def count(_: Transaction) -> Dispositions:
        return Dispositions(answered=5, applied=applied, duplicate=2, in_flight=1)

    async def total(_: Transaction) -> int:
        return money or 0

    ledger = Ledger.of(deployment["scheduling"].runtime)
    ledger.interfaces["planted"] = count
    ledger.money = None if money is None else total


async def test_a_ledger_that_adds_up_is_shown(clinic: Clinic, deployment: Deployment) -> None:
    plant_ledger(deployment, money=0)
    shown = await clinic("ledger")
    assert (shown.status, shown.err) == (0, "")
    assert ["scheduling", "planted", "5", "2", "0", "0", "0", "2", "0", "1", "yes"] in shown.words
    assert ["scheduling", "0", "yes"] in shown.words


async def test_messages_without_a_fate_are_an_error(clinic: Clinic, deployment: Deployment) -> None:
    plant_ledger(deployment, applied=1)
    shown = await clinic("ledger")
    assert (shown.status, "NO" in shown.out) == (1, True)
    told = await clinic("ledger", "--json")
    assert (told.status, told.document["balanced"]) == (1, False)


async def test_money_from_nowhere_is_an_error(clinic: Clinic, deployment: Deployment) -> None:
    plant_ledger(deployment, money=-150)
    shown = await clinic("ledger")
    assert (shown.status, ["scheduling", "-150", "NO"] in shown.words) == (1, True)


async def test_a_service_that_does_not_answer_is_named(clinic: Clinic, deployment: Deployment) -> None:
    await deployment.stop("referrals")
    ledger = await clinic("ledger")
    assert ledger.status == 1
    assert "referrals didn't answer (service-down): its part is missing\n" in ledger.err
    assert (await clinic("ledger", "--json")).document["unreachable"][0]["service"] == "referrals"
    for command in (["events", "--subject", str(uuid7())], ["dead-letters", "ls"]):
        asked = await clinic(*command)
        assert (asked.status, "referrals didn't answer" in asked.err) == (0, True)


async def test_where_nothing_runs_the_commands_say_so(clinic: Clinic) -> None:
    for command in (["ledger"], ["events", "--subject", str(uuid7())], ["dead-letters", "ls"]):
        asked = await clinic(*command)
        assert (asked.status, asked.out) == (1, "")
        assert asked.err.startswith("clinic: nothing runs here and CLINIC_URL isn't set\n")


async def test_a_gateway_that_is_down_is_told_in_one_line(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, deployment: Deployment
) -> None:
    await deployment.stop("gateway")
    asked = await clinic("ledger")
    assert (asked.status, asked.err.splitlines()[0]) == (1, f"clinic: {deployment.url} can't be reached")
    monkeypatch.setenv("CLINIC_URL", "nonsense")
    assert (await clinic("ledger")).err.splitlines()[0] == "clinic: nonsense can't be reached"


async def test_a_wrong_password_is_told_in_one_line(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, deployment: Deployment
) -> None:
    monkeypatch.setenv("CLINIC_PASSWORD", "not-the-password")
    asked = await clinic("ledger")
    assert (asked.status, asked.err.splitlines()[0]) == (1, "clinic: POST /v1/auth/login answered 401: no")
    assert "not-the-password" not in asked.err


async def test_the_local_administrators_password_is_for_the_local_system_only(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, deployment: Deployment, tmp_path: Path
) -> None:
    for name in ("CLINIC_URL", "CLINIC_LOGIN", "CLINIC_PASSWORD"):
        monkeypatch.delenv(name)
    write_env(tmp_path, {"CLINIC_URL": deployment.url})
    refused = await clinic("ledger")
    assert refused.err.startswith(f"clinic: no login for {deployment.url}\n")
    write_private(tmp_path / ".run" / "secrets" / ADMIN_PASSWORD, PASSWORD)
    monkeypatch.setattr("clinic_local.operations.ADMIN_LOGIN", "operator@example.org")
    assert (await clinic("ledger")).status == 0
    monkeypatch.setenv("CLINIC_URL", "https://clinic.invalid")
    refused = await clinic("ledger")
    assert (refused.status, refused.err.splitlines()[0]) == (1, "clinic: no login for https://clinic.invalid")
