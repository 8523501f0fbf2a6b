"""Enhanced mode with both acknowledgements: the commit's at once, the application's when the message is processed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
from clinic_lab_integration.app import process_messages
from clinic_lab_integration.messages import INTERFACE
from clinic_lab_integration.mllp import MllpServer
from clinic_lab_integration.tables import lab_callback
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError
from clinic_shared.intake import Item
from clinic_shared.intake_worker import IntakeWorker

from .conftest import Compose, Laboratory, assess, msa
from .test_mllp import Wire, configure, connected, listening

BOTH = {15: "AL", 16: "AL"}


@pytest.fixture
async def server(lab: Laboratory) -> AsyncIterator[MllpServer]:
    await configure(lab, mllp_peers=["127.0.0.1"])
    async with listening(lab) as made:
        yield made


async def fetch(lab: Laboratory, posted: httpx.Response) -> httpx.Response:
    path = posted.headers["location"] + "/acknowledgement"
    return await lab.lab.http.get(path, auth=(lab.client_id, lab.secret))


@asynccontextmanager
async def working(lab: Laboratory) -> AsyncIterator[None]:
    """Work messages off as they come."""
    stop = asyncio.Event()
    worker = asyncio.create_task(process_messages(lab.lab.runtime, stop))
    try:
        yield
    finally:
        stop.set()
        await worker


@pytest.mark.parametrize(
    ("wanted", "owes"),
    [
        (("AL", "AL"), True),
        (("AL", "SU"), True),
        (("SU", "AL"), True),
        (("AL", "ER"), False),
        (("ER", "AL"), False),
        (("AL", "NE"), False),
        (("NE", "AL"), False),
        (("AL", ""), False),
        (("", "AL"), False),
        (("", ""), False),
    ],
)
def test_two_answers_are_owed_where_both_are_wanted_of_a_message_that_is_taken(
    compose: Compose, wanted: tuple[str, str], owes: bool
) -> None:
    asked = dict(zip((15, 16), wanted, strict=True))
    [taken] = assess(compose(msh=asked)).messages
    [refused] = assess(compose(msh=asked | {9: "ADT^A01"})).messages
    assert (taken.owes_application_answer, refused.owes_application_answer) == (owes, False)


async def test_over_http_the_second_is_fetched_when_the_message_is_processed(
    lab: Laboratory, compose: Compose
) -> None:
    await lab.add_patient()
    posted = await lab.post(compose(msh=BOTH))
    assert msa(posted) == ["MSA", "CA", "MSG-1"]
    early = await fetch(lab, posted)
    assert (early.status_code, early.headers["Retry-After"]) == (409, "5")
    assert early.json()["type"].endswith("/message-not-processed-yet")
    await lab.process()
    second = await fetch(lab, posted)
    assert (second.status_code, second.headers["content-type"]) == (200, "application/hl7-v2")
    assert msa(second) == ["MSA", "AA", "MSG-1"]
    header = second.text.split("\r")[0].split("|")
    assert header[14:16] == ["NE", "NE"], "an acknowledgement wants none"
    assert header[9] != posted.text.split("\r")[0].split("|")[9], "it is a message of its own"
    assert (await fetch(lab, posted)).content == second.content


async def test_who_asked_for_one_answer_has_had_it(lab: Laboratory, compose: Compose) -> None:
    posted = await lab.post(compose(msh={15: "NE", 16: "AL"}))
    assert msa(posted)[1] == "AA"
    await lab.process()
    assert (await fetch(lab, posted)).status_code == 404


async def test_another_laboratory_doesn_t_get_it(lab: Laboratory, compose: Compose) -> None:
    posted = await lab.post(compose(msh=BOTH))
    await lab.process()
    other = Laboratory(lab.lab, client_id="lab-other", secret="another-fictitious-secret")
    await other.register()
    assert (await fetch(other, posted)).status_code == 404


async def test_a_message_that_waits_for_a_person_is_accepted_all_the_same(
    lab: Laboratory, compose: Compose
) -> None:
    posted = await lab.post(compose(msh=BOTH))
    await lab.process()
    assert await lab.dispositions() == {"answered": 1, "parked": 1}
    assert msa(await fetch(lab, posted))[1] == "AA"


async def test_a_partner_with_an_address_is_called_with_it(lab: Laboratory, compose: Compose) -> None:
    await configure(lab, callback_url="https://lab.example.org/answers")
    await lab.add_patient()
    posted = await lab.post(compose(msh=BOTH))
    assert await lab.rows(lab_callback) == []
    await lab.process()
    [call] = await lab.rows(lab_callback)
    told = orjson.loads(call["body"])
    assert told["type"] == "lab-message.acknowledged"
    assert told["data"]["acknowledgement"] == (await fetch(lab, posted)).text


async def test_over_mllp_both_come_on_the_connection(
    lab: Laboratory, server: MllpServer, compose: Compose
) -> None:
    await configure(lab, mllp_peers=["127.0.0.1"], callback_url="https://lab.example.org/answers")
    async with connected(server) as wire:
        assert (await wire.ask(compose(msh=BOTH)))[1] == "MSA|CA|MSG-1"
        assert (await wire.ask(compose(msh=BOTH | {10: "MSG-2"})))[1] == "MSA|CA|MSG-2"
        await lab.process()
        second = [await wire.answer(), await wire.answer()]
    assert [answer[1] for answer in second] == ["MSA|AA|MSG-1", "MSA|AA|MSG-2"]
    assert await lab.rows(lab_callback) == [], "nobody is told twice"


async def test_whoever_lost_the_connection_and_sends_again_gets_both_again(
    lab: Laboratory, server: MllpServer, compose: Compose
) -> None:
    async with connected(server) as wire:
        first = await wire.ask(compose(msh=BOTH))
    await lab.process()
    async with connected(server) as wire:
        assert await wire.ask(compose(msh=BOTH)) == first
        second = await wire.answer()
        assert second[1] == "MSA|AA|MSG-1"
        assert await wire.ask(compose(msh=BOTH)) == first
        assert await wire.answer() == second
    assert await lab.dispositions() == {"answered": 3, "parked": 1, "duplicate": 2}


async def test_a_sender_that_waits_for_both_before_the_next_is_served(
    lab: Laboratory, server: MllpServer, compose: Compose
) -> None:
    async def both(wire: Wire, number: int) -> list[str]:
        first = await wire.ask(compose(msh=BOTH | {10: f"M-{number}"}))
        return [first[1], (await wire.answer())[1]]

    async with working(lab), connected(server) as wire:
        for number in range(3):
            assert await both(wire, number) == [f"MSA|CA|M-{number}", f"MSA|AA|M-{number}"]


async def test_a_message_that_a_person_lets_be_is_rejected_in_the_second_answer(
    lab: Laboratory, compose: Compose
) -> None:
    posted = await lab.post(compose(msh=BOTH))
    assert await IntakeWorker(lab.lab.runtime, {INTERFACE: fail}).process_next()
    assert (await fetch(lab, posted)).status_code == 409
    await discard(lab, posted.headers["location"].rpartition("/")[2])
    second = await fetch(lab, posted)
    assert msa(second)[:3] == ["MSA", "AR", "MSG-1"]
    assert "\rERR|" in second.text


async def fail(_: Transaction, __: Item) -> None:
    raise InvalidRequestError("never")


async def discard(lab: Laboratory, message_id: str) -> None:
    http, path = lab.lab.http, "/v1/ops/messages"
    asked = await http.post(
        f"{path}/discard",
        json={"ids": [message_id], "reason": "sent by mistake"},
        headers=lab.headers("system-administrator"),
    )
    assert asked.status_code == 200, asked.text
    approved = await http.post(
        f"{path}/decisions/{asked.json()['decision_id']}/approve", headers=lab.headers("system-administrator")
    )
    assert approved.status_code == 200, approved.text
