"""The four-way reconciliation: provider, ledger, receipts and the bank, and its work list."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from clinic_billing.reconciliation import running
from clinic_billing.reconciliation.comparing import OwedReceipt, with_receipts
from clinic_billing.reconciliation.statements import UnreadableStatementError, read
from clinic_shared.ids import uuid7
from sqlalchemy import text

from .conftest import PRICE, Provider, Till
from .test_receipts import fiscalise, paid

CAMT = """<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"><BkToCstmrStmt><Stmt><Id>1</Id>
<Ntry><Amt Ccy="RUB">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd><BookgDt><Dt>{day}</Dt></BookgDt>
<AcctSvcrRef>B-1</AcctSvcrRef><NtryDtls><TxDtls><RltdPties><Dbtr><Nm>Stripe Payments</Nm></Dbtr></RltdPties>
<RmtInf><Ustrd>Payout</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>
<Ntry><Amt Ccy="RUB">10.00</Amt><CdtDbtInd>DBIT</CdtDbtInd><BookgDt><Dt>{day}</Dt></BookgDt>
<AcctSvcrRef>B-2</AcctSvcrRef><AddtlNtryInf>Fee</AddtlNtryInf></Ntry>
</Stmt></BkToCstmrStmt></Document>"""


def today(till: Till) -> str:
    return till.billing.clock.now().date().isoformat()


async def reconcile(till: Till) -> dict[str, Any]:
    answer = await till.post(f"/v1/payments/reconciliation/days/{today(till)}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def open_kinds(till: Till) -> set[str]:
    items = (await till.get("/v1/payments/reconciliation/discrepancies")).json()["items"]
    return {item["kind"] for item in items}


async def bring(till: Till, body: str, media_type: str = "application/xml") -> httpx.Response:
    path = f"/v1/payments/reconciliation/statements/{till.legal_entity_id}"
    headers = till.biller() | {"content-type": media_type}
    return await till.billing.http.post(path, content=body.encode(), headers=headers)


async def test_a_day_on_which_all_four_agree_leaves_no_work(provider: Provider) -> None:
    till = provider.till
    await paid(provider)
    await fiscalise(till)
    statement = CAMT.format(amount="2450.00", day=today(till)).replace("10.00", "0.01")
    await bring(
        till, statement.partition('<Ntry><Amt Ccy="RUB">0.01')[0] + "</Stmt></BkToCstmrStmt></Document>"
    )
    assert await reconcile(till) == {
        "day": today(till),
        "discrepancies": 0,
        "providers_asked": 1,
        "providers_away": 0,
    }


async def test_what_each_side_lacks_is_found_and_gone_once_it_agrees(provider: Provider) -> None:
    till = provider.till
    unpaid = await provider.started()
    await paid(provider)
    await provider.http.post(f"/_control/stripe/{unpaid['provider_reference']}/pay", json={})
    await bring(till, CAMT.format(amount="9999.00", day=today(till)))
    await reconcile(till)
    assert await open_kinds(till) == {"ledger-missing", "receipt-open", "payout-missing", "bank-unmatched"}
    await provider.quiet()
    await fiscalise(till)
    await reconcile(till)
    assert await open_kinds(till) == {"payout-missing", "bank-unmatched"}


async def test_a_payment_that_the_provider_doesn_t_know_is_found(till: Till) -> None:
    payment, reference = await till.paid()
    del till.stripe.intents[reference]
    await reconcile(till)
    items = (await till.get("/v1/payments/reconciliation/discrepancies")).json()["items"]
    [found] = [item for item in items if item["kind"] == "provider-unknown"]
    assert (found["subject"], found["expected_minor"]) == (payment["payment_id"], PRICE)


async def test_a_refund_that_the_ledger_lacks_is_found(till: Till) -> None:
    _, reference = await till.paid()
    refunded = {"id": "re_1", "status": "succeeded", "amount": 100, "currency": "rub"}
    till.stripe.learn("refund.created", refunded | {"payment_intent": reference})
    await reconcile(till)
    assert "provider-differs" in await open_kinds(till)


async def test_a_provider_that_is_away_is_told_and_not_taken_for_a_difference(provider: Provider) -> None:
    await paid(provider)
    await provider.fail_next(status=503)
    assert (await reconcile(provider.till))["providers_away"] == 1
    assert await open_kinds(provider.till) == {"receipt-open"}


async def test_what_a_person_settled_stays_settled(till: Till) -> None:
    await till.paid()
    await reconcile(till)
    path = "/v1/payments/reconciliation/discrepancies"
    [found] = (await till.get(path)).json()["items"]
    settled = await till.post(f"{path}/{found['discrepancy_id']}/settle", {"note": "known"})
    assert (settled.json()["state"], settled.json()["note"]) == ("settled", "known")
    assert (await till.post(f"{path}/{found['discrepancy_id']}/settle", {"note": "known"})).status_code == 404
    await reconcile(till)
    assert (await till.get(path)).json()["items"] == []


async def test_each_day_is_compared_once_it_is_over_missed_ones_included(till: Till) -> None:
    runtime = till.billing.runtime
    await till.paid()
    assert await running.next_day(runtime) is None
    first = till.billing.clock.now().date()
    till.billing.clock.advance(days=2, hours=3)
    for day in (first, first + timedelta(days=1)):
        assert await running.next_day(runtime) == day
        await running.reconcile(runtime, day)
    assert await running.next_day(runtime) is None


async def test_a_statement_brings_each_line_once(till: Till) -> None:
    body = "reference;date;amount;currency;counterparty;purpose\nA;2026-03-02;10,5;RUB;x;y\n"
    assert (await bring(till, body, "text/csv")).json()["line"] == 2
    body = body.replace("10,5", "-10.50")
    first = await bring(till, body, "text/csv")
    assert (first.status_code, first.json()["format"], first.json()["new_lines"]) == (201, "csv", 1)
    assert (await bring(till, body, "text/csv")).json()["new_lines"] == 0
    overlapping = await bring(till, body + "B;2026-03-02;1.00;RUB;x;y\n", "text/csv")
    assert (overlapping.json()["lines"], overlapping.json()["new_lines"]) == (2, 1)
    async with till.billing.runtime.database.transaction() as tx:
        rows = await tx.fetch_all(text("SELECT amount_minor FROM bank_line ORDER BY bank_reference"))
    assert [row.amount_minor for row in rows] == [-1050, 100]


async def test_who_isn_t_of_the_network_sees_no_accounts(till: Till) -> None:
    local = till.biller(network=False, centre_ids=frozenset({till.centre_id}))
    answer = await till.get("/v1/payments/reconciliation/discrepancies", local)
    assert answer.status_code == 403
    answer = await till.post("/v1/payments/reconciliation/days/2999-01-01")
    assert answer.status_code == 422


def test_camt_is_read_with_its_signs_and_names() -> None:
    fmt, [payout, fee] = read(CAMT.format(amount="2450.00", day="2026-03-02").encode())
    assert (fmt, payout.amount_minor, payout.counterparty) == ("camt.053", 245_000, "Stripe Payments")
    assert (fee.amount_minor, fee.purpose) == (-1000, "Fee")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"reference,date\n",
        b"<Document/>",
        b"<Document",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><Document/>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><Document>&a;</Document>".encode("utf-16"),
        CAMT.format(amount="1.001", day="2026-03-02").encode(),
        CAMT.format(amount="1.00", day="yesterday").encode(),
        b"reference,date,amount,currency,counterparty,purpose\n,2026-03-02,1.00,RUB,x,y\n",
        b"reference,date,amount,currency,counterparty,purpose\nA,2026-03-02,NaN,RUB,x,y\n",
    ],
)
def test_what_is_no_statement_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableStatementError):
        read(body)


def test_csv_of_old_programs_is_read() -> None:
    body = "Reference;Date;Amount;Currency;Counterparty;Purpose\nA;2026-03-02;1.00;RUB;ЮKassa;Выплата\n"
    _, [line] = read(body.encode("cp1251"))
    assert line.counterparty == "ЮKassa"


def test_a_receipt_of_another_amount_or_none_is_found() -> None:
    owed: dict[str, Any] = {
        "amount_minor": 5,
        "currency": "RUB",
        "done": True,
        "exists": True,
        "tendered_minor": 5,
    }
    changes: list[dict[str, Any]] = [{}, {"exists": False}, {"done": False}, {"tendered_minor": 4}]
    found = with_receipts(OwedReceipt(**owed | change, movement_id=str(uuid7())) for change in changes)
    assert [one.kind for one in found] == ["receipt-missing", "receipt-open", "receipt-differs"]
