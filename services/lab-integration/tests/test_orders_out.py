"""Orders reach their laboratory, once, whatever it does: over MLLP, HTTP and FHIR."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from clinic_lab_integration import order_sending, order_store
from clinic_local.fakes.in_process import serving
from clinic_local.fakes.laboratory import Laboratory as FakeLaboratory
from clinic_local.fakes.settings import FakesSettings
from clinic_local.fakes.world import Fault, World
from clinic_shared.events import audit_outbox
from sqlalchemy import select
from starlette.applications import Starlette

from .conftest import Laboratory

NAME = {"family": "Тестова|^~\\&", "given": "Anna", "patronymic": None}


class Receiver:
    """The laboratory at the other end, and how our service is told of it."""

    def __init__(self, lab: Laboratory, fake: FakeLaboratory, world: World, urls: dict[str, str]) -> None:
        self.lab, self.fake, self.world, self.urls = lab, fake, world, urls

    async def takes(self, kind: str, **changes: Any) -> None:
        formats = {"mllp": "oml-o21", "http": "orm-o01", "fhir": "fhir"}
        answer = await self.lab.lab.http.put(
            f"/v1/lab/partners/{self.lab.partner_id}/order-destination",
            json={
                "format": formats[kind],
                "url": self.urls[kind],
                "receiving_application": "TESTLIS",
                **changes,
            },
            headers=self.lab.headers("system-administrator"),
        )
        assert answer.status_code == 200, answer.text

    def will(self, **fault: Any) -> None:
        self.world.faults.append(Fault(vendor="laboratory", **fault))

    async def send(self) -> int:
        """Send what is due, as if the time between two attempts had passed."""
        await self.due_now()
        return await order_sending.send_due(self.lab.lab.runtime)

    async def due_now(self) -> None:
        from clinic_lab_integration.tables import order_transmission
        from sqlalchemy import func, update

        async with self.lab.lab.runtime.database.transaction() as tx:
            await tx.execute(update(order_transmission).values(next_attempt_at=func.clock_timestamp()))

    async def order(self, **changes: Any) -> Any:
        patient_id = await self.lab.add_patient(name=NAME, birth_on="1990-01-02", sex="female")
        return await self.lab.order(patient_id, **changes)

    async def transmissions(self, order: Any) -> list[tuple[str, str, str | None]]:
        found = await self.lab.get(f"/v1/lab/orders/{order['lab_order_id']}")
        return [(t["action"], t["state"], t["answer_code"]) for t in found["transmissions"]]


@pytest.fixture
async def receiver(lab: Laboratory) -> AsyncIterator[Receiver]:
    world = World(FakesSettings())
    fake = FakeLaboratory(world)
    async with serving(Starlette(routes=fake.routes())) as url, fake.listening() as port:
        urls = {
            "mllp": f"mllp://127.0.0.1:{port}",
            "http": f"{url}/laboratory/hl7",
            "fhir": f"{url}/laboratory/fhir",
        }
        yield Receiver(lab, fake, world, urls)


@pytest.mark.parametrize(("kind", "code"), [("mllp", "AA"), ("http", "AA"), ("fhir", "201")])
async def test_an_order_reaches_the_laboratory_and_is_answered_for(
    receiver: Receiver, kind: str, code: str
) -> None:
    await receiver.takes(kind)
    order = await receiver.order()
    assert await receiver.transmissions(order) == [("new", "pending", None)]
    assert await receiver.send() == 1
    assert await receiver.transmissions(order) == [("new", "acknowledged", code)]
    assert await receiver.send() == 0
    [sent] = receiver.fake.messages
    assert order["placer_order_number"] in sent


@pytest.mark.parametrize("url", ["mllp://10.0.0.1:2575", "mllps://10.0.0.1:2575", "https://10.0.0.1/hl7"])
async def test_an_order_waits_while_its_laboratory_is_where_nothing_is_sent(
    receiver: Receiver, url: str
) -> None:
    from clinic_lab_integration.tables import order_destination, order_transmission
    from sqlalchemy import select, update

    await receiver.takes("mllp")
    order = await receiver.order()
    async with receiver.lab.lab.runtime.database.transaction() as tx:
        await tx.execute(update(order_destination).values(url=url))
    assert await receiver.send() == 1
    assert await receiver.transmissions(order) == [("new", "pending", None)]
    async with receiver.lab.lab.runtime.database.transaction() as tx:
        [row] = await tx.fetch_all(select(order_transmission.c.last_error))
    assert row.last_error == "destination-refused"


async def test_what_was_written_separates_nothing(receiver: Receiver) -> None:
    await receiver.takes("mllp")
    order = await receiver.order(priority="stat", clinical_note="first line\nsecond | line")
    await receiver.send()
    segments = {line.split("|")[0]: line for line in receiver.fake.messages[0].split("\r")}
    assert segments["MSH"].split("|")[8:12] == [
        "OML^O21^OML_O21",
        next(iter(receiver.fake.taken)),
        "P",
        "2.5.1",
    ]
    assert segments["PID"].split("|")[3] == "MRN-1^^^POLYCLINIC"
    assert segments["PID"].split("|")[5] == r"Тестова\F\\S\\R\\E\\T\^Anna"
    assert segments["ORC"].split("|")[1:3] == ["NW", f"{order['placer_order_number']}^POLYCLINIC"]
    assert segments["TQ1"].endswith("|S")
    assert segments["OBR"].split("|")[4] == "58410-2^^LN"
    assert segments["NTE"] == r"NTE|1|P|first line\.br\second \F\ line"


async def test_a_service_request_has_the_order_s_id_and_its_patient(receiver: Receiver) -> None:
    await receiver.takes("fhir")
    order = await receiver.order(tests=[{"code": "718-7", "system": "http://loinc.org"}, {"code": "X"}])
    await receiver.send()
    request = json.loads(receiver.fake.messages[0])
    assert (request["id"], request["status"]) == (order["lab_order_id"], "active")
    assert request["contained"][0]["birthDate"] == "1990-01-02"
    assert [d["coding"][0]["code"] for d in request["orderDetail"]] == ["718-7", "X"]


@pytest.mark.parametrize("kind", ["mllp", "http"])
@pytest.mark.parametrize(
    "fault", [{"code": "die"}, {"code": "AE-207"}, {"code": "die", "after_accepting": True}]
)
async def test_whoever_gives_no_answer_gets_the_same_message_again(
    receiver: Receiver, kind: str, fault: dict[str, Any]
) -> None:
    await receiver.takes(kind)
    receiver.will(times=2, **fault)
    order = await receiver.order()
    for _ in range(2):
        await receiver.send()
        assert await receiver.transmissions(order) == [("new", "pending", None)]
    await receiver.send()
    assert await receiver.transmissions(order) == [("new", "acknowledged", "AA")]
    assert len(receiver.fake.taken) == 1


async def test_a_laboratory_that_is_down_gets_its_orders_when_it_is_back(receiver: Receiver) -> None:
    await receiver.takes("mllp", url="mllp://127.0.0.1:9")
    order = await receiver.order()
    await receiver.send()
    found = await receiver.lab.get(f"/v1/lab/orders/{order['lab_order_id']}")
    assert found["transmissions"][0]["last_error"] == "ConnectionRefusedError"
    await receiver.takes("mllp")
    await receiver.send()
    assert await receiver.transmissions(order) == [("new", "acknowledged", "AA")]


@pytest.mark.parametrize("code", ["repeat", "stray"])
async def test_the_answer_to_another_message_is_not_taken_for_it(receiver: Receiver, code: str) -> None:
    await receiver.takes("mllp")
    receiver.will(code=code)
    order = await receiver.order()
    await receiver.send()
    assert await receiver.transmissions(order) == [("new", "acknowledged", "AA")]
    assert list(receiver.fake.taken.values()) == [1]


@pytest.mark.parametrize(
    ("kind", "fault", "code"),
    [("mllp", {"code": "AR"}, "AR"), ("http", {"code": "AE"}, "AE"), ("fhir", {"status": 422}, "422")],
)
async def test_what_the_laboratory_refuses_waits_for_a_person(
    receiver: Receiver, kind: str, fault: dict[str, Any], code: str
) -> None:
    await receiver.takes(kind)
    receiver.will(**fault)
    order = await receiver.order()
    await receiver.send()
    assert await receiver.transmissions(order) == [("new", "refused", code)]
    assert await receiver.send() == 0
    path, headers = f"/v1/lab/orders/{order['lab_order_id']}/send-again", receiver.lab.headers()
    again = await receiver.lab.lab.http.post(path, headers=headers)
    assert again.json()["transmissions"][0]["state"] == "pending", again.text
    await receiver.send()
    assert (await receiver.transmissions(order))[0][1] == "acknowledged"
    refused = await receiver.lab.lab.http.post(path, headers=receiver.lab.headers())
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/nothing-refused")


async def cancel(receiver: Receiver, order: Any) -> Any:
    return await receiver.lab.lab.http.post(
        f"/v1/lab/orders/{order['lab_order_id']}/cancel",
        json={"reason": "ordered twice"},
        headers=receiver.lab.headers(),
    )


async def test_a_cancellation_follows_the_order_and_never_overtakes_it(receiver: Receiver) -> None:
    await receiver.takes("http")
    receiver.will(code="die")
    order = await receiver.order()
    await receiver.send()
    cancelled = await cancel(receiver, order)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled"), cancelled.text
    assert await receiver.send() == 1
    assert await receiver.transmissions(order) == [
        ("new", "acknowledged", "AA"),
        ("cancel", "pending", None),
    ]
    await receiver.send()
    controls = [
        line.split("|")[1] for m in receiver.fake.messages for line in m.split("\r") if line[:3] == "ORC"
    ]
    assert controls == ["NW", "CA"]
    [event] = await receiver.lab.lab.events("lab-integration.lab-order-cancelled.v1")
    assert (event.data["status"], event.data["version"]) == ("cancelled", 2)
    assert (await cancel(receiver, order)).json()["type"] == "/problems/order-not-cancellable"


async def test_what_was_never_sent_is_taken_back_in_silence(receiver: Receiver) -> None:
    await receiver.takes("http")
    order = await receiver.order()
    await cancel(receiver, order)
    assert await receiver.send() == 0
    assert receiver.fake.messages == []
    assert await receiver.transmissions(order) == [("new", "withdrawn", None)]


async def test_an_order_with_results_can_t_be_cancelled(receiver: Receiver, compose) -> None:
    order = await receiver.order()
    await receiver.lab.send(
        compose(
            "PID|1",
            f"OBR|1|{order['placer_order_number']}|F-1|A||||||||||||||||||||||F",
            "OBX|1|NM|A||1||||||F",
        )
    )
    assert (await cancel(receiver, order)).status_code == 409


async def test_two_workers_send_an_order_once(receiver: Receiver) -> None:
    await receiver.takes("mllp")
    for _ in range(3):
        await receiver.lab.order(await receiver.lab.add_patient())
    await receiver.due_now()
    sent = await asyncio.gather(*(order_sending.send_due(receiver.lab.lab.runtime) for _ in range(3)))
    assert sum(sent) == 3
    assert list(receiver.fake.taken.values()) == [1, 1, 1]


async def test_without_a_destination_an_order_goes_on_paper(receiver: Receiver) -> None:
    order = await receiver.order()
    assert await receiver.transmissions(order) == []
    assert await receiver.send() == 0


async def test_the_requisition_is_a_pdf_with_the_number(receiver: Receiver) -> None:
    order = await receiver.order(clinical_note="#panic() *not* markup")
    path = f"/v1/lab/orders/{order['lab_order_id']}/requisition"
    answer = await receiver.lab.lab.http.get(path, headers=receiver.lab.headers())
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF-")
    assert (await receiver.lab.lab.http.get(path, headers=receiver.lab.headers("biller"))).status_code == 403
    elsewhere = receiver.lab.headers("doctor", network=False, department_ids=frozenset())
    assert (await receiver.lab.lab.http.get(path, headers=elsewhere)).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://lab.example"},
        {"url": "mllp://lab.example"},
        {"url": "https://user:secret@lab.example/"},
        {"processing_id": "X"},
        {"format": "fax"},
    ],
)
async def test_a_destination_that_can_t_be_reached_is_refused(receiver: Receiver, wrong: Any) -> None:
    body = {"url": "mllp://lab.example:2575", **wrong}
    answer = await receiver.lab.lab.http.put(
        f"/v1/lab/partners/{receiver.lab.partner_id}/order-destination",
        json=body,
        headers=receiver.lab.headers("system-administrator"),
    )
    assert answer.status_code == 422


async def test_how_long_orders_wait_is_measured(receiver: Receiver) -> None:
    await receiver.takes("mllp")
    await receiver.order()
    async with receiver.lab.lab.runtime.database.transaction() as tx:
        counted = await order_store.count_pending(tx)
    assert counted.pending == 1
    assert counted.oldest_at is not None


async def test_no_order_goes_to_a_country_that_the_law_does_not_allow(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await receiver.takes("http", country="US")
    order = await receiver.order()
    runtime = receiver.lab.lab.runtime
    monkeypatch.setattr(
        runtime, "settings", runtime.settings.model_copy(update={"jurisdiction": "152-fz"}), raising=True
    )
    assert await receiver.send() == 1
    assert await receiver.transmissions(order) == [("new", "refused", "transfer-not-allowed")]
    assert receiver.fake.messages == []
    async with runtime.database.transaction() as tx:
        rows = await tx.fetch_all(select(audit_outbox.c.record).order_by(audit_outbox.c.id))
    [blocked] = [r for r in map(orjson.loads, (row.record for row in rows)) if r["outcome"] == "4"]
    assert (blocked["entity"]["id"], blocked["details"]["country"]) == (order["lab_order_id"], "US")


async def test_a_laboratory_in_such_a_country_is_not_configured(receiver: Receiver) -> None:
    answer = await receiver.lab.lab.http.put(
        f"/v1/lab/partners/{receiver.lab.partner_id}/order-destination",
        json={"format": "oml-o21", "url": receiver.urls["mllp"], "country": "IN"},
        headers=receiver.lab.headers("system-administrator"),
    )
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/transfer-not-allowed")
