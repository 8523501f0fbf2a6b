"""What billing contributes to a patient's export."""

from clinic_shared.ids import uuid7
from clinic_shared.testing_exports import exported

from .conftest import Till


async def test_invoices_and_payments_without_the_secrets_of_payment_forms(till: Till) -> None:
    payment, _ = await till.paid()
    part = await exported(till.billing, payment["patient_id"])
    [invoice] = part.resources
    assert (invoice["resourceType"], invoice["id"]) == ("Invoice", payment["invoice_id"])
    assert invoice["totalGross"] == {"value": payment["amount_minor"] / 100, "currency": payment["currency"]}
    [paid] = part.others["payments"]
    assert (paid["payment_id"], paid["status"]) == (payment["payment_id"], "succeeded")
    assert not {"client_secret", "confirmation_url"} & paid.keys()
    assert (await exported(till.billing, uuid7())).resources == []
