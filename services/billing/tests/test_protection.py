"""Where receipts go and what banks say of payers lies sealed; the books stay readable."""

import asyncio

import pytest
from clinic_billing import tables
from clinic_billing.app import service
from clinic_shared.encryption.backlog import KINDS, count_by_key, encrypt_backlog, rewrap_all
from clinic_shared.encryption.ciphers import KeyEncryptionKey, KeyId
from clinic_shared.testing_dumps import tables_that_show
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from .conftest import Provider, Till
from .test_receipts import fiscalise, paid, receipts, registered
from .test_reconciliation import bring, open_kinds, reconcile, today

EMAIL, PAYER, PURPOSE = "kanareika@example.org", "ТЕСТОВА КАНАРЕЙКА", "За канарейку по счёту"
CANARIES = (EMAIL, PAYER, PURPOSE)
EVERYTHING = (*KINDS, *service.encrypted)
NEVER = asyncio.Event()


async def shown(till: Till) -> dict[str, set[str]]:
    return await tables_that_show(till.billing.runtime.database, *CANARIES)


async def take_money(provider: Provider) -> None:
    """Take a payment and its receipt, and a statement whose line nobody can match."""
    await paid(provider, receipt_to=EMAIL)
    await fiscalise(provider.till)
    line = f"reference,date,amount,currency,counterparty,purpose\nB-1,{today(provider.till)},12.00,RUB,{PAYER},{PURPOSE}\n"
    answer = await bring(provider.till, line, "text/csv")
    assert answer.status_code in {200, 201}, answer.text


async def test_a_dump_shows_no_payers_contact_nor_name(provider: Provider) -> None:
    await take_money(provider)
    assert await shown(provider.till) == {}
    assert [document["about"]["client"] for document in await registered(provider)] == [{"email": EMAIL}]
    await reconcile(provider.till)
    assert "bank-unmatched" in await open_kinds(provider.till)


async def test_what_the_release_before_stored_is_used_and_then_sealed(provider: Provider) -> None:
    till = provider.till
    database = till.billing.runtime.database
    database.keyring.encrypting = False
    await take_money(provider)
    assert {"payment", "receipt", "bank_line"} <= (await shown(till)).keys()
    told = await receipts(till)
    database.keyring.encrypting = True
    assert await encrypt_backlog(database, NEVER, EVERYTHING) > 0
    assert await encrypt_backlog(database, NEVER, EVERYTHING) == 0
    assert await shown(till) == {}
    assert await receipts(till) == told
    [payment] = await till.rows(tables.payment)
    refund = {"amount_minor": 1000, "reason_code": "mistake"}
    assert (await till.post(f"/v1/payments/{payment['payment_id']}/refunds", refund)).status_code < 300
    await provider.call()
    await provider.quiet()
    await fiscalise(till)
    sent = [document["about"]["client"] for document in await registered(provider)]
    assert sent == [{"email": EMAIL}] * 2


async def test_a_rotation_reaches_registered_receipts_and_changes_nothing_they_say(
    provider: Provider,
) -> None:
    till = provider.till
    database = till.billing.runtime.database
    old, new = [KeyEncryptionKey(KeyId(name), bytes(32)) for name in (b"key-0001", b"key-0002")]
    database.keyring.take([old])
    await take_money(provider)
    told = await receipts(till)
    database.keyring.take([old, new])
    assert await rewrap_all(database, NEVER, service.encrypted) > 0
    counted = await count_by_key(database, service.encrypted)
    assert {key for by_key in counted.values() for key in by_key} == {b"key-0002".hex()}
    assert await receipts(till) == told
    with pytest.raises(IntegrityError, match="a receipt is owed"):
        async with database.transaction() as tx:
            await tx.execute(
                text("UPDATE receipt SET document = jsonb_set(document, '{currency}', '\"USD\"')")
            )
