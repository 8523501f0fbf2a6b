"""`clinic events resend`, `clinic reporting` and `clinic partitions` against services in this process."""

from datetime import UTC, datetime, timedelta

import pytest
from clinic_shared.ids import uuid7
from clinic_shared.partitions import Month

from .conftest import Clinic, Deployment

FROM = ("--consumer", "referrals", "--from", "2026-03-02T09:00:00")


async def test_a_resend_is_asked_for_listed_and_stopped(clinic: Clinic, deployment: Deployment) -> None:
    begun = await clinic("events", "resend", *FROM, "--type", "scheduling.appointment-booked.v1", "--detach")
    replay_id = begun.out.split()[0]
    asked = deployment["referrals"]
    [event] = await asked.events("platform.replay-requested.v1")
    assert (event.data["from_at"], event.data["keep_origin"]) == ("2026-03-02T09:00:00Z", False)
    listed = await clinic("events", "replays", "--consumer", "referrals")
    assert listed.words[1][:3] == [replay_id, "resend", "running"]
    stopped = await clinic("events", "replays", "--consumer", "referrals", "--cancel", replay_id, "--json")
    assert stopped.document[0]["state"] == "cancelled"
    assert len(await asked.events("platform.replay-cancelled.v1")) == 1


@pytest.mark.usefixtures("deployment")
async def test_what_a_consumer_does_not_hear_cannot_be_resent_to_it(clinic: Clinic) -> None:
    refused = await clinic("events", "resend", *FROM, "--type", "billing.invoice-issued.v1")
    assert refused.status == 1
    assert "referrals does not consume billing.invoice-issued.v1" in refused.err


@pytest.mark.usefixtures("deployment")
async def test_events_without_a_subject_asks_for_one(clinic: Clinic) -> None:
    asked = await clinic("events")
    assert asked.status == 2
    assert "--subject" in asked.err


@pytest.mark.usefixtures("deployment")
async def test_a_rebuild_of_what_is_not_installed_says_so(clinic: Clinic) -> None:
    refused = await clinic("reporting", "rebuild")
    assert refused.status == 1
    assert "isn't installed" in refused.err


async def test_a_service_without_a_read_model_has_nothing_to_rebuild(deployment: Deployment) -> None:
    referrals = deployment["referrals"]
    operator = referrals.principal("system-administrator")
    answer = await referrals.http.post("/v1/ops/rebuilds", json={}, headers=referrals.headers(operator))
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (404, "no-read-model")


@pytest.mark.usefixtures("deployment")
async def test_partitions_are_listed_with_when_they_may_go(clinic: Clinic) -> None:
    asked = await clinic("partitions")
    assert asked.status == 0
    this_month = Month.of(datetime.now(UTC))
    shown = {tuple(line[:2]): line for line in asked.words[1:]}
    expires_on = f"{this_month.ends_at + timedelta(days=400):%Y-%m-%d}"
    assert shown["scheduling", this_month.name("event")][-2] == expires_on
    assert shown["referrals", "inbox_default"][-1] == "never"


async def test_a_replay_that_nobody_knows_is_not_found(deployment: Deployment) -> None:
    referrals = deployment["referrals"]
    operator = referrals.principal("system-administrator")
    answer = await referrals.http.post(
        f"/v1/ops/replays/{uuid7()}/cancel", headers=referrals.headers(operator)
    )
    assert answer.status_code == 404
