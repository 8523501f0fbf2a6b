"""Logins from devices never seen before: their owner is told, and sees them among the sessions."""

from typing import Any

from clinic_shared.testing import FixedClock

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network

SEEN = "identity.new-device-seen.v1"


async def log_in(network: Network, device: str | None) -> dict[str, Any]:
    answer = await network.identity.http.post(
        "/v1/auth/login",
        json={"login": ADMIN_LOGIN, "password": ADMIN_PASSWORD, "device_token": device},
        headers={"X-Forwarded-For": "203.0.113.7", "User-Agent": "Testbrowser/1.0"},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_device_is_told_of_once_and_stands_among_the_sessions(
    installation: Installation, clock: FixedClock
) -> None:
    async with installation.start(notice_new_devices=True) as running:
        network = Network(running, running.principal())
        first = await log_in(network, None)
        clock.advance(minutes=1)
        again = await log_in(network, first["device_token"])
        [event] = await running.events(SEEN)
        assert event.private == {"address": "203.0.113.7", "agent": "Testbrowser/1.0"}
        assert event.data["patient_id"] is None
        listed = (await network.with_token("GET", "/v1/sessions", again["access_token"])).json()
        assert [(session["current"], session["new_device"]) for session in listed] == [
            (False, True),
            (True, False),
        ]
        await log_in(network, "dv_forged")
        assert len(await running.events(SEEN)) == 2


async def test_it_is_the_installation_that_says_whether_people_are_told(network: Network) -> None:
    await log_in(network, None)
    assert await network.identity.events(SEEN) == []


async def test_in_production_people_are_told(installation: Installation) -> None:
    async with installation.start() as running:
        settings = running.runtime.settings
        assert not settings.new_devices_are_noticed
        assert settings.model_copy(update={"environment": "production"}).new_devices_are_noticed
