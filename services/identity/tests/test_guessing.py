"""Guesses from elsewhere never keep somebody from logging in with a device that logged in before."""

from typing import Any

import httpx

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Network

WRONG = "not the password"


async def try_to_log_in(
    network: Network, password: str, *, device: str | None, address: str
) -> httpx.Response:
    body = {"login": ADMIN_LOGIN, "password": password, "device_token": device}
    headers = {"X-Forwarded-For": address}
    return await network.identity.http.post("/v1/auth/login", json=body, headers=headers)


async def guess(network: Network, times: int, *, address: str = "198.51.100.9") -> list[int]:
    tried = [await try_to_log_in(network, WRONG, device=None, address=address) for _ in range(times)]
    return [answer.status_code for answer in tried]


async def known_device(network: Network) -> str:
    return str((await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD))["device_token"])


async def test_a_device_that_logged_in_before_is_not_kept_out_by_strangers(network: Network) -> None:
    device = await known_device(network)
    for number in range(12):
        await guess(network, 4, address=f"198.51.100.{number}")
    stranger = await try_to_log_in(network, ADMIN_PASSWORD, device=None, address="203.0.113.80")
    assert stranger.status_code == 429
    owner = await try_to_log_in(network, ADMIN_PASSWORD, device=device, address="203.0.113.80")
    assert owner.status_code == 200
    assert owner.json()["device_token"] is None  # it has one
    still = await try_to_log_in(network, ADMIN_PASSWORD, device=None, address="203.0.113.80")
    assert still.status_code == 429


async def test_whoever_holds_the_device_is_slowed_down_too(network: Network) -> None:
    device = await known_device(network)
    tried = [
        (await try_to_log_in(network, WRONG, device=device, address="203.0.113.80")).status_code
        for _ in range(6)
    ]
    assert tried == [401] * 5 + [429]
    elsewhere = await try_to_log_in(network, ADMIN_PASSWORD, device=None, address="203.0.113.81")
    assert elsewhere.status_code == 200


async def test_a_device_counts_for_its_own_account_only(network: Network) -> None:
    member = await network.add_member()
    theirs = (await network.session_of(member["login"], member["initial_password"]))["device_token"]
    statuses = [
        (await try_to_log_in(network, WRONG, device=theirs, address=f"198.51.100.{n}")).status_code
        for n in range(11)
    ]
    assert statuses == [401] * 10 + [429]


async def test_strangers_wait_half_an_hour_after_ten_guesses_and_a_day_after_a_hundred(
    network: Network, clock: Any
) -> None:
    waits = []
    guessed = 0
    while guessed < 101:
        answer = await try_to_log_in(network, WRONG, device=None, address=f"198.51.100.{guessed}")
        if answer.status_code == 429:
            waits.append(int(answer.headers["Retry-After"]))
            clock.advance(seconds=waits[-1])
        else:
            guessed += 1
    assert waits == [1800] * 90 + [86_400]


async def test_a_new_password_lets_strangers_in_again(network: Network) -> None:
    member = await network.add_member()
    for n in range(10):
        await network.log_in(member["login"], WRONG, address=f"198.51.100.{n}")
    assert (await network.log_in(member["login"], member["initial_password"])).status_code == 429
    renewed = (await network.post(f"/v1/staff/{member['staff_id']}/initial-password")).json()
    assert (await network.log_in(member["login"], renewed["initial_password"])).status_code == 200


async def test_guesses_from_elsewhere_keep_nobody_from_changing_their_password(network: Network) -> None:
    session = await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    for number in range(10):
        await guess(network, 1, address=f"198.51.100.{number}")
    body = {"current_password": ADMIN_PASSWORD, "new_password": "quite another passphrase"}
    changed = await network.with_token("POST", "/v1/me/password", session["access_token"], body)
    assert changed.status_code == 204, changed.text
