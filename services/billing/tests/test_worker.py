"""The worker's own loops: nobody calls, polls or processes by hand."""

import asyncio

from clinic_billing.app import process_notifications
from clinic_billing.provider_calls import make_provider_calls
from clinic_shared.testing import eventually

from .conftest import Provider


async def test_a_payment_goes_from_its_start_to_the_books_by_itself(provider: Provider) -> None:
    till, stop = provider.till, asyncio.Event()
    runtime = till.billing.runtime
    async with asyncio.TaskGroup() as loops:
        loops.create_task(make_provider_calls(runtime, stop))
        loops.create_task(process_notifications(runtime, stop))
        payment = await till.start_payment((await till.invoice())["invoice_id"])
        payment_id = payment["payment_id"]

        async def reference() -> str | None:
            return (await till.read_payment(payment_id))["provider_reference"]

        async def is_received() -> bool:
            return bool((await till.read_payment(payment_id))["status"] == "succeeded")

        intent = await eventually(reference)
        body = {"deliveries": 3, "reorder": True}
        assert (await provider.http.post(f"/_control/stripe/{intent}/pay", json=body)).status_code == 200
        await eventually(is_received)
        await provider.quiet()
        stop.set()
    assert len(await till.billing.events("billing.payment-received.v1")) == 1
    await till.assert_books_are_right()
