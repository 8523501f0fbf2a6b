"""HTTP in: cash desks."""

from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, Idempotency, Page, PageQuery, Tx, page_of

from clinic_billing import ledger
from clinic_billing.cashdesk import shifts, taking
from clinic_billing.cashdesk.models import (
    CarryRequest,
    CountRequest,
    DeskPaymentRequest,
    DeskRequest,
    DeskResponse,
    DrawerResponse,
    ShiftResponse,
)
from clinic_billing.models import PaymentResponse, RefundResponse

router = ClinicRouter(tags=["cash desk"])


@router.post("/v1/payments/desks", permission="payments.manage", status_code=201, operation_id="openCashDesk")
async def open_cash_desk(tx: Tx, caller: Caller, body: DeskRequest) -> DeskResponse:
    """Set a cash desk up at a centre."""
    made = await shifts.open_desk(tx, centre_id=body.centre_id, name=body.name, caller=caller)
    return DeskResponse.of(made)


@router.get("/v1/payments/desks", permission="payments.manage", operation_id="listCashDesks")
async def list_cash_desks(tx: Tx, caller: Caller) -> list[DeskResponse]:
    """List the cash desks at the caller's places."""
    return [DeskResponse.of(row) for row in await shifts.list_desks(tx, caller=caller)]


@router.post(
    "/v1/payments/desks/{desk_id}/shifts",
    permission="payments.manage",
    status_code=201,
    operation_id="openShift",
)
async def open_shift(tx: Tx, caller: Caller, desk_id: UUID, body: CountRequest) -> ShiftResponse:
    """Open a shift with what was counted in the drawer. What differs from the books is booked."""
    opened = await shifts.open_shift(tx, desk_id, counted_minor=body.counted_minor, caller=caller)
    return ShiftResponse.of(opened)


@router.post(
    "/v1/payments/desks/{desk_id}/shifts/close", permission="payments.manage", operation_id="closeShift"
)
async def close_shift(tx: Tx, caller: Caller, desk_id: UUID, body: CountRequest) -> ShiftResponse:
    """Close the open shift with what was counted. What is missing, or too much, is booked as a difference."""
    closed = await shifts.close_shift(tx, desk_id, counted_minor=body.counted_minor, caller=caller)
    return ShiftResponse.of(closed)


@router.get("/v1/payments/desks/{desk_id}/shifts", permission="payments.manage", operation_id="listShifts")
async def list_shifts(tx: Tx, caller: Caller, desk_id: UUID, page: PageQuery) -> Page[ShiftResponse]:
    """List a desk's shifts."""
    found = await shifts.list_shifts(tx, desk_id, after=page.after, limit=page.limit + 1, caller=caller)
    return page_of([ShiftResponse.of(row) for row in found], page, key=lambda s: s.shift_id)


@router.get("/v1/payments/desks/{desk_id}/drawer", permission="payments.manage", operation_id="readDrawer")
async def read_drawer(tx: Tx, caller: Caller, desk_id: UUID) -> DrawerResponse:
    """Return what must be in the drawer by the books."""
    await shifts.find_desk(tx, desk_id, caller=caller)
    return DrawerResponse(desk_id=desk_id, cash_minor=await ledger.balance_of(tx, shifts.drawer(desk_id)))


@router.post(
    "/v1/payments/desks/{desk_id}/cash",
    permission="payments.manage",
    idempotency=Idempotency.REQUIRED,
    operation_id="carryCash",
)
async def carry_cash(tx: Tx, caller: Caller, desk_id: UUID, body: CarryRequest) -> DrawerResponse:
    """Carry cash from the safe to the drawer, or back."""
    left = await shifts.carry(
        tx, desk_id, amount_minor=body.amount_minor, direction=body.direction, caller=caller
    )
    return DrawerResponse(desk_id=desk_id, cash_minor=left)


@router.post(
    "/v1/payments/desks/{desk_id}/payments",
    permission="payments.manage",
    idempotency=Idempotency.REQUIRED,
    status_code=201,
    operation_id="takePayment",
)
async def take_payment(tx: Tx, caller: Caller, desk_id: UUID, body: DeskPaymentRequest) -> PaymentResponse:
    """Take money for an invoice: cash, or by the card terminal, whose operation has succeeded already."""
    taken = await taking.take(
        tx,
        desk_id,
        invoice_id=body.invoice_id,
        tender=body.tender,
        amount_minor=body.amount_minor,
        terminal_reference=body.terminal_reference,
        receipt_contact=body.receipt_to,
        caller=caller,
    )
    return PaymentResponse.of(taken)


@router.post(
    "/v1/payments/desks/{desk_id}/refunds/{refund_id}",
    permission="payments.refund",
    idempotency=Idempotency.REQUIRED,
    operation_id="giveBackAtDesk",
)
async def give_back_at_desk(tx: Tx, caller: Caller, desk_id: UUID, refund_id: UUID) -> RefundResponse:
    """Hand out a refund that is `pending`, of a payment that this desk took."""
    return RefundResponse.of(await taking.give_back(tx, desk_id, refund_id, caller=caller))
