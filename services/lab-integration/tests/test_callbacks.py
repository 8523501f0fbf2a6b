"""A laboratory that holds a message for taken is told when a person rejects it, once and signed."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from clinic_lab_integration import callbacks
from clinic_lab_integration.callbacks import SCHEDULE
from clinic_lab_integration.partners import PartnerDirectory
from clinic_lab_integration.tables import lab_callback

from .conftest import Laboratory

ADMIN = "system-administrator"


@dataclass
class Receiver:
    """The laboratory's end: an address on the network that we own the transport of."""

    status: int = 204
    calls: list[httpx.Request] = field(default_factory=list)

    def client(self) -> httpx.AsyncClient:
        async def answer(request: httpx.Request) -> httpx.Response:
            self.calls.append(request)
            if self.status == 0:
                raise httpx.ConnectError("nobody there")
            return httpx.Response(self.status)

        return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.fixture
async def rejected(lab: Laboratory, compose: Callable[..., bytes]) -> str:
    """A message that was acknowledged, parked and then rejected by a person; its id."""
    body = {"callback_url": "https://lab.example.org/rejections"}
    answer = await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}", json=body, headers=lab.headers(ADMIN)
    )
    assert answer.status_code == 200
    await lab.lab.runtime.get(PartnerDirectory).refresh()
    message_id = await lab.send(compose())
    await reject(lab, message_id)
    return message_id


async def reject(lab: Laboratory, message_id: str) -> None:
    answer = await lab.lab.http.post(
        f"/v1/lab/unmatched/{message_id}.0/reject",
        json={"reason": "Send it with our patient number"},
        headers=lab.headers("doctor"),
    )
    assert answer.status_code == 200, answer.text


async def call(lab: Laboratory, receiver: Receiver) -> bool:
    async with receiver.client() as http:
        return await callbacks.call_next(lab.lab.runtime, http)


async def calls_of(lab: Laboratory) -> Any:
    return (await lab.get(f"/v1/lab/partners/{lab.partner_id}", ADMIN))["callbacks"]


async def test_a_rejection_is_told_once_and_signed(lab: Laboratory, rejected: str) -> None:
    receiver = Receiver()
    assert await calls_of(lab) == {"waiting": 1}
    assert await call(lab, receiver)
    assert not await call(lab, receiver)
    [request] = receiver.calls
    assert str(request.url) == "https://lab.example.org/rejections"
    told = json.loads(request.content)
    assert told["type"] == "lab-message.rejected"
    assert told["data"]["message_id"] == rejected
    assert (told["data"]["control_id"], told["data"]["reason"]) == (
        "MSG-1",
        "Send it with our patient number",
    )
    assert await calls_of(lab) == {"delivered": 1}
    key = hashlib.sha256(lab.secret.encode()).digest()
    head = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode()
    signature = base64.b64encode(hmac.new(key, head + request.content, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{signature}"


@pytest.mark.parametrize("status", [0, 302, 404, 500])
async def test_what_is_not_answered_is_called_again_under_the_same_id(
    lab: Laboratory, rejected: str, status: int
) -> None:
    receiver = Receiver(status)
    assert await call(lab, receiver)
    assert not await call(lab, receiver)
    receiver.status = 200
    lab.lab.clock.advance(seconds=SCHEDULE[0].total_seconds())
    assert await call(lab, receiver)
    assert len({request.headers["webhook-id"] for request in receiver.calls}) == 1
    assert await calls_of(lab) == {"delivered": 1}


async def test_a_laboratory_that_never_answers_is_given_up_and_shown(lab: Laboratory, rejected: str) -> None:
    receiver, attempts = Receiver(500), 0
    while await call(lab, receiver):
        attempts += 1
        lab.lab.clock.advance(days=2)
    assert attempts == len(SCHEDULE) + 1
    assert await calls_of(lab) == {"failed": 1}


async def test_without_an_address_nobody_is_called(lab: Laboratory, compose) -> None:
    await reject(lab, await lab.send(compose()))
    assert await lab.rows(lab_callback) == []
