"""The rules of money, without anything else."""

from datetime import UTC, date, datetime
from typing import Any, get_args

import pytest
from clinic_billing.accounts import invoice_entries, payment_entries, refund_entries
from clinic_billing.domain import (
    Attention,
    Invoice,
    InvoiceId,
    InvoiceLine,
    InvoiceStatus,
    Payment,
    PaymentId,
    PaymentStatus,
    Refund,
    RefundId,
    RefundStatus,
    status_of,
    total_of,
)
from clinic_billing.errors import (
    AmountTooHighError,
    NothingToPayError,
    NotRefundableError,
    PaymentClosedError,
    PaymentMismatchError,
)
from clinic_billing.models import DispositionName
from clinic_shared import contracts
from clinic_shared.ids import uuid7
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)


def invoice(total: int = 1000, **changes: Any) -> Invoice:
    values: dict[str, Any] = {
        "invoice_id": InvoiceId(uuid7()),
        "version": 1,
        "number": "2026-000001",
        "status": InvoiceStatus.ISSUED,
        "patient_id": uuid7(),
        "appointment_id": uuid7(),
        "lab_order_id": None,
        "centre_id": uuid7(),
        "department_id": uuid7(),
        "legal_entity_id": uuid7(),
        "currency": "RUB",
        "lines": (InvoiceLine(service_code="test", quantity=1, unit_amount_minor=total),),
        "total_minor": total,
        "paid_minor": 0,
        "issued_at": NOW,
        "due_on": date(2026, 3, 9),
    }
    return Invoice(**values | changes)


def payment(amount: int = 1000, **changes: Any) -> Payment:
    values: dict[str, Any] = {
        "payment_id": PaymentId(uuid7()),
        "version": 1,
        "status": PaymentStatus.PENDING,
        "invoice_id": InvoiceId(uuid7()),
        "patient_id": uuid7(),
        "amount_minor": amount,
        "currency": "RUB",
        "provider": "stripe",
        "requested_at": NOW,
    }
    return Payment(**values | changes)


def received(amount: int = 1000) -> Payment:
    return payment(amount).received(amount_minor=amount, currency="RUB", reference="pi_1", received_at=NOW)


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("invoice", set(InvoiceStatus)),
        ("payment", set(PaymentStatus)),
        ("refund", set(RefundStatus)),
        ("payment-notification", set(get_args(DispositionName))),
    ],
)
def test_the_statuses_are_those_of_the_taxonomy(name: str, statuses: set[str]) -> None:
    assert statuses == set(contracts.load().statuses(name))


def test_lines_add_up() -> None:
    lines = [InvoiceLine(service_code="a", quantity=2, unit_amount_minor=150), *invoice(700).lines]
    assert total_of(lines) == 1000


@pytest.mark.parametrize(
    ("total", "paid", "status"),
    [
        (1000, 0, "issued"),
        (1000, 1, "partly-paid"),
        (1000, 1000, "paid"),
        (1000, 1500, "paid"),
        (0, 0, "paid"),
    ],
)
def test_an_invoice_s_status_follows_from_what_was_paid(total: int, paid: int, status: str) -> None:
    assert status_of(total_minor=total, paid_minor=paid) == status


def test_money_that_goes_back_is_owed_again() -> None:
    back = invoice().moved_by(1000).moved_by(-400)
    assert (back.status, back.outstanding_minor, back.version) == (InvoiceStatus.PARTLY_PAID, 400, 3)


def test_paying_too_much_asks_for_attention_until_it_goes_back() -> None:
    over = invoice().moved_by(1500)
    assert (over.attention, over.outstanding_minor) == (Attention.OVERPAID, 0)
    assert over.moved_by(-500).attention is None


def test_another_reason_for_attention_is_not_overwritten() -> None:
    noted = invoice().noting(Attention.VISIT_CANCELLED)
    assert noted.moved_by(1500).attention is Attention.VISIT_CANCELLED


def test_a_payment_asks_for_what_is_left_and_never_for_more() -> None:
    partly = invoice().moved_by(300)
    assert partly.amount_to_pay(None) == 700
    assert partly.amount_to_pay(200) == 200
    with pytest.raises(AmountTooHighError):
        partly.amount_to_pay(701)
    with pytest.raises(NothingToPayError):
        invoice().moved_by(1000).amount_to_pay(None)


def test_a_cancelled_invoice_asks_for_nothing() -> None:
    with pytest.raises(NothingToPayError):
        invoice(status=InvoiceStatus.CANCELLED).amount_to_pay(None)


def test_only_the_amount_and_currency_that_were_asked_for_are_received() -> None:
    for amount, currency in ((999, "RUB"), (1000, "USD")):
        with pytest.raises(PaymentMismatchError):
            payment().received(amount_minor=amount, currency=currency, reference="pi_1", received_at=NOW)


@pytest.mark.parametrize("status", [PaymentStatus.FAILED, PaymentStatus.CANCELLED])
def test_a_closed_payment_receives_nothing(status: PaymentStatus) -> None:
    with pytest.raises(PaymentClosedError):
        payment().closed(status).received(
            amount_minor=1000, currency="RUB", reference="pi_1", received_at=NOW
        )


def test_refunds_never_exceed_the_payment() -> None:
    half = received().refunding(600)
    assert half.amount_to_refund(None) == 400
    with pytest.raises(AmountTooHighError):
        half.amount_to_refund(401)
    done = half.refunded(600, of_reserved=True)
    assert (done.status, done.refunding_minor) == (PaymentStatus.PARTLY_REFUNDED, 0)
    whole = done.refunded(400, of_reserved=False)
    assert whole.status is PaymentStatus.REFUNDED
    with pytest.raises(NotRefundableError):
        whole.amount_to_refund(None)


def test_what_was_not_received_can_t_go_back() -> None:
    with pytest.raises(NotRefundableError):
        payment().amount_to_refund(None)


@given(total=st.integers(0, 10**12), paid=st.integers(1, 10**12), back=st.integers(1, 10**12))
def test_every_movement_sums_to_zero_and_the_receivable_is_what_is_owed(
    total: int, paid: int, back: int
) -> None:
    issued = invoice(total)
    refund = Refund(
        refund_id=RefundId(uuid7()),
        payment_id=PaymentId(uuid7()),
        status=RefundStatus.SUCCEEDED,
        amount_minor=back,
        reason_code="test",
        provider="stripe",
        requested_at=NOW,
    )
    movements = [
        invoice_entries(issued),
        payment_entries(issued, payment(paid)),
        refund_entries(issued, payment(paid), refund),
    ]
    assert all(sum(entry.amount_minor for entry in entries) == 0 for entries in movements)
    owed = sum(
        entry.amount_minor
        for entries in movements
        for entry in entries
        if entry.account == f"receivable:{issued.invoice_id}"
    )
    assert owed == total - paid + back
