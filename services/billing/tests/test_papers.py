"""Invoices and acts on paper."""

from uuid import UUID

import pytest
from clinic_billing import store
from clinic_billing.papers.typesetting import Paper, Printed, shown, typeset
from clinic_shared.ids import uuid7

from .conftest import PRICE, Till


@pytest.mark.parametrize("paper", ["pdf", "act"])
async def test_an_invoice_and_its_act_come_as_pdf(till: Till, paper: str) -> None:
    invoice = await till.invoice()
    answer = await till.get(f"/v1/invoices/{invoice['invoice_id']}/{paper}", till.patient())
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/pdf"
    assert invoice["number"] in answer.headers["content-disposition"]
    assert answer.content.startswith(b"%PDF-")


async def test_a_paper_says_what_was_sold_and_what_is_to_pay(till: Till) -> None:
    payment, _ = await till.settle(await till.invoice())
    async with till.billing.runtime.database.transaction() as tx:
        invoice = await store.find_invoice(tx, UUID(payment["invoice_id"]))
    assert invoice is not None
    printed = Printed(invoice=invoice, seller="Fictitious Clinic", names={})
    said = shown(Paper.INVOICE, printed)
    assert said["rows"] == [["1", "dermatology-consultation", "1", "2500.00", "2500.00"]]
    assert said["sums"] == [
        ["Total, without VAT", "2500.00 RUB"],
        ["Paid", "2500.00 RUB"],
        ["To pay", "0.00 RUB"],
    ]
    assert shown(Paper.ACT, printed)["sums"] == [["Total, without VAT", "2500.00 RUB"]]
    assert invoice.total_minor == PRICE


async def test_what_somebody_wrote_is_never_markup(till: Till) -> None:
    payment, _ = await till.settle(await till.invoice())
    async with till.billing.runtime.database.transaction() as tx:
        invoice = await store.find_invoice(tx, UUID(payment["invoice_id"]))
    assert invoice is not None
    hostile = '#panic("no") $x$ *bold* "quoted"'
    printed = Printed(invoice=invoice, seller=hostile, names={"dermatology-consultation": hostile})
    assert typeset(Paper.ACT, printed).startswith(b"%PDF-")


async def test_there_is_no_act_of_an_advance_and_nobody_else_sees_a_paper(till: Till) -> None:
    await till.billing.deliver_example("patients.patient-registered.v1", patient_id=str(till.patient_id))
    asked = {
        "patient_id": str(till.patient_id),
        "centre_id": str(till.centre_id),
        "department_id": str(till.department_id),
        "amount_minor": 1000,
    }
    advance = (await till.post("/v1/invoices/advances", asked)).json()
    refused = await till.get(f"/v1/invoices/{advance['invoice_id']}/act")
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (409, "nothing-rendered")
    other = till.billing.headers(till.billing.principal("patient", patient_id=uuid7()))
    assert (await till.get(f"/v1/invoices/{advance['invoice_id']}/pdf", other)).status_code == 404
