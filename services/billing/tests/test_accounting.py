"""The export for 1C: stable GUIDs, idempotent, totals that agree with the ledger."""

import csv
import io
from typing import Any
from xml.etree import ElementTree as ET

import httpx
from clinic_billing.accounting.documents import NAMESPACE, to_csv
from clinic_billing.tables import ledger_movement

from .conftest import PRICE, Till

NS = {"e": NAMESPACE}


async def export(till: Till, **query: Any) -> httpx.Response:
    day = till.billing.clock.now().date().isoformat()
    answer = await till.get(f"/v1/payments/accounting/{till.legal_entity_id}/days/{day}", **query)
    assert answer.status_code == 200, answer.text
    return answer


async def totals(till: Till) -> dict[str, tuple[int, int]]:
    day = till.billing.clock.now().date().isoformat()
    answer = await till.get(f"/v1/payments/accounting/{till.legal_entity_id}/days/{day}/totals")
    return {t["kind"]: (t["documents"], t["amount_minor"]) for t in answer.json()["totals"]}


async def a_day(till: Till) -> None:
    payment, reference = await till.paid()
    refunded = {"id": "re_1", "status": "succeeded", "amount": 1000, "currency": "rub"}
    await till.notify("refund.created", refunded | {"payment_intent": reference})
    await till.process()
    path = f"/v1/invoices/{payment['invoice_id']}/write-offs"
    await till.post(path, {"reason_code": "rounding"})
    desk = (await till.post("/v1/payments/desks", {"centre_id": str(till.centre_id), "name": "1"})).json()
    await till.post(f"/v1/payments/desks/{desk['desk_id']}/shifts", {"counted_minor": 0})
    invoice = await till.invoice()
    taken = {"invoice_id": invoice["invoice_id"], "tender": "cash"}
    await till.post(f"/v1/payments/desks/{desk['desk_id']}/payments", taken)


async def test_every_movement_of_an_invoice_is_a_document_with_the_movement_s_guid(till: Till) -> None:
    await a_day(till)
    root = ET.fromstring((await export(till)).content)  # noqa: S314  # our own
    documents = root.findall("e:Body/*", NS)
    guids = [document.findtext("e:КлючевыеСвойства/e:Ссылка", "", NS) for document in documents]
    assert sorted(guids) == sorted(str(row["movement_id"]) for row in await till.rows(ledger_movement))
    assert {document.get("Версия") for document in documents} == {"1"}
    sale = root.find("e:Body/e:Документ.РеализацияУслуг", NS)
    assert sale is not None
    assert sale.findtext("e:Сумма", None, NS) == "2500.00"
    assert sale.findtext("e:Услуги/e:Строка/e:Номенклатура", None, NS) == "dermatology-consultation"


async def test_totals_of_the_day_are_those_of_the_ledger(till: Till) -> None:
    await a_day(till)
    assert await totals(till) == {
        "sale": (2, 2 * PRICE),
        "payment": (1, PRICE),
        "cash_in": (1, PRICE),
        "refund": (1, 1000),
        "write_off": (1, 1000),
    }


async def test_the_same_day_is_the_same_bytes_and_later_days_don_t_change_it(till: Till) -> None:
    await a_day(till)
    day = till.billing.clock.now().date().isoformat()
    before = (await export(till)).content
    till.billing.clock.advance(days=1)
    await till.paid()
    path = f"/v1/payments/accounting/{till.legal_entity_id}/days/{day}"
    assert (await till.get(path)).content == before
    assert (await totals(till))["sale"] == (1, PRICE)


async def test_csv_has_the_same_documents(till: Till) -> None:
    await a_day(till)
    answer = await export(till, form="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 6
    assert {row["kind"] for row in rows} == {"sale", "payment", "cash_in", "refund", "write_off"}
    assert rows[0]["amount"] == "2500.00"


async def test_another_legal_entity_s_day_is_empty_and_a_day_to_come_is_refused(till: Till) -> None:
    await a_day(till)
    day = till.billing.clock.now().date().isoformat()
    other = await till.get(f"/v1/payments/accounting/{till.centre_id}/days/{day}/totals")
    assert other.json()["totals"] == []
    path = f"/v1/payments/accounting/{till.legal_entity_id}/days"
    assert (await till.get(f"{path}/2999-01-01")).status_code == 422
    local = till.biller(network=False, centre_ids=frozenset({till.centre_id}))
    assert (await till.get(f"{path}/{day}", local)).status_code == 403


def test_an_empty_day_has_a_header() -> None:
    assert to_csv([]).startswith("guid,version,kind")
