"""HTTP in: money before there is a service, money given up, and the second person's decisions."""

from typing import cast
from uuid import UUID

from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    CurrentRuntime,
    Idempotency,
    Page,
    PageQuery,
    Tx,
    page_of,
)

from clinic_billing import advances, approvals, payments
from clinic_billing.domain import RefundStatus
from clinic_billing.models import (
    AdvanceRequest,
    DecisionRequest,
    InvoiceResponse,
    RefundResponse,
    SetOffRequest,
    WriteOffRequest,
    WriteOffResponse,
)
from clinic_billing.settings import BillingSettings

router = ClinicRouter(tags=["billing"])


@router.post(
    "/v1/invoices/advances",
    permission="invoices.create",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="askForAdvance",
)
async def ask_for_advance(tx: Tx, caller: Caller, body: AdvanceRequest) -> InvoiceResponse:
    """Ask a patient for money in advance: for a visit that is booked, or a deposit. It is paid and refunded
    like an invoice; what was paid is owed to the patient until it is set off.
    """
    return InvoiceResponse.of(await advances.ask_for(tx, body.command(), caller=caller))


@router.post(
    "/v1/invoices/{invoice_id}/advances",
    permission="payments.manage",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="setOffAdvance",
)
async def set_off_advance(tx: Tx, caller: Caller, invoice_id: UUID, body: SetOffRequest) -> InvoiceResponse:
    """Settle an invoice with what the patient paid in advance."""
    settled = await advances.set_off(
        tx, invoice_id, body.advance_id, amount_minor=body.amount_minor, caller=caller
    )
    return InvoiceResponse.of(settled)


@router.post(
    "/v1/invoices/{invoice_id}/write-offs",
    permission="payments.refund",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="writeOffInvoice",
)
async def write_off_invoice(
    tx: Tx, caller: Caller, runtime: CurrentRuntime, invoice_id: UUID, body: WriteOffRequest
) -> WriteOffResponse:
    """Give up what an invoice still asks for. Above the limit it awaits the approval of a second person."""
    write_off_id = await approvals.write_off_invoice(
        tx,
        invoice_id,
        amount_minor=body.amount_minor,
        reason_code=body.reason_code,
        limit_minor=cast("BillingSettings", runtime.settings).approval_limit_minor,
        caller=caller,
    )
    return WriteOffResponse.of(await approvals.find_write_off(tx, write_off_id))


@router.get("/v1/invoices/{invoice_id}/write-offs", permission="invoices.read", operation_id="listWriteOffs")
async def list_write_offs(tx: Tx, caller: Caller, invoice_id: UUID) -> list[WriteOffResponse]:
    """List what was given up of an invoice, and what is asked to be."""
    found = await approvals.list_write_offs(tx, invoice_id, caller=caller)
    return [WriteOffResponse.of(row) for row in found]


@router.post(
    "/v1/invoices/write-offs/{write_off_id}/decision",
    permission="payments.refund",
    operation_id="decideWriteOff",
)
async def decide_write_off(
    tx: Tx, caller: Caller, write_off_id: UUID, body: DecisionRequest
) -> WriteOffResponse:
    """Approve of a write-off or turn it down. Whoever asked for it can't."""
    await approvals.decide_write_off(tx, write_off_id, approved=body.approved, caller=caller)
    return WriteOffResponse.of(await approvals.find_write_off(tx, write_off_id))


@router.get("/v1/refunds", permission="payments.refund", operation_id="listRefundsOfAll")
async def list_refunds_of_all(
    tx: Tx, caller: Caller, page: PageQuery, status: RefundStatus | None = None
) -> Page[RefundResponse]:
    """List refunds at the caller's places; those `awaiting-approval` need a second person."""
    found = await payments.list_refunds_of_all(
        tx, caller=caller, status=status, after=page.after, limit=page.limit + 1
    )
    return page_of([RefundResponse.of(r) for r in found], page, key=lambda r: r.refund_id)


@router.post("/v1/refunds/{refund_id}/decision", permission="payments.refund", operation_id="decideRefund")
async def decide_refund(tx: Tx, caller: Caller, refund_id: UUID, body: DecisionRequest) -> RefundResponse:
    """Approve of a refund or turn it down. Whoever asked for it can't."""
    decided = await approvals.decide_refund(tx, refund_id, approved=body.approved, caller=caller)
    return RefundResponse.of(decided)
