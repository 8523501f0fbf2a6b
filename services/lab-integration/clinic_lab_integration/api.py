"""HTTP in, as JSON: laboratories, orders, results. What laboratories post comes in through `message_api.py`."""

from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.errors import NotFoundError
from clinic_shared.routing import Caller, ClinicRouter, CurrentRuntime, IfMatch, Page, PageQuery, Tx, page_of

from clinic_lab_integration import callbacks, order_store, orders, partners, reading, result_store, store
from clinic_lab_integration.models import (
    OrderRequest,
    OrderResponse,
    PartnerDetail,
    PartnerRequest,
    PartnerResponse,
    ResultResponse,
)

router = ClinicRouter(prefix="/v1/lab", tags=["lab-integration"])


@router.get("/partners", permission="lab-partners.read", operation_id="listLabPartners")
async def list_partners(tx: Tx, page: PageQuery) -> Page[PartnerResponse]:
    """List the laboratories of the network. They are created as OAuth clients at `/v1/clients`."""
    found = await store.list_partners(tx, after=page.after, limit=page.limit + 1)
    return page_of([PartnerResponse.of(p) for p in found], page, key=lambda p: p.partner_id)


@router.get("/partners/{partner_id}", permission="lab-partners.read", operation_id="getLabPartner")
async def get_partner(tx: Tx, partner_id: UUID) -> PartnerDetail:
    """Return a laboratory with its configuration, its last message and what became of all of them."""
    partner = await store.find_partner(tx, partner_id)
    if partner is None:
        raise NotFoundError
    activity = await store.find_activity(tx, partner_id)
    calls = await callbacks.count_callbacks(tx, partner_id)
    return PartnerDetail.with_activity(partner, activity, calls, now=tx.now)


@router.put("/partners/{partner_id}", permission="lab-partners.manage", operation_id="configureLabPartner")
async def configure_partner(
    runtime: CurrentRuntime, tx: Tx, partner_id: UUID, body: PartnerRequest, expected: IfMatch
) -> PartnerResponse:
    """Replace a laboratory's configuration. It holds for messages processed from now on."""
    if body.callback_url is not None:
        partners.require_allowed(runtime, body.callback_url)
    configured = await partners.configure(tx, partner_id, body.command(), expected_version=expected)
    return PartnerResponse.of(configured)


@router.post("/orders", permission="lab-orders.place", status_code=201, operation_id="placeLabOrder")
async def place_order(tx: Tx, caller: Caller, body: OrderRequest) -> OrderResponse:
    """Order tests. The laboratory echoes `placer_order_number` with its results."""
    order = await orders.place_order(tx, body.command(), caller=caller)
    return OrderResponse.of(order, await order_store.of_orders(tx, [order.lab_order_id]))


@router.get("/orders", permission="lab-orders.read", operation_id="listLabOrders")
async def list_orders(
    tx: Tx, caller: Caller, page: PageQuery, patient_id: UUID | None = None
) -> Page[OrderResponse]:
    """List orders of the caller's places, with how far they have come."""
    found = await orders.list_orders(
        tx, caller=caller, patient_id=patient_id, after=page.after, limit=page.limit + 1
    )
    told = await order_store.of_orders(tx, [order.lab_order_id for order in found])
    return page_of([OrderResponse.of(o, told) for o in found], page, key=lambda o: o.lab_order_id)


@router.get("/orders/{lab_order_id}", permission="lab-orders.read", operation_id="getLabOrder")
async def get_order(tx: Tx, caller: Caller, lab_order_id: UUID) -> OrderResponse:
    """Return one order."""
    order = await orders.read_order(tx, lab_order_id, caller=caller)
    return OrderResponse.of(order, await order_store.of_orders(tx, [lab_order_id]))


@router.get("/results", permission="results.read", operation_id="listLabResults")
async def list_results(tx: Tx, caller: Caller, page: PageQuery, patient_id: UUID) -> Page[ResultResponse]:
    """List a patient's reports, each in its newest version. The values are in the chart (`/v1/patients`)."""
    decision = await reading.permit_results(tx, patient_id, caller=caller)
    found = await result_store.list_results(tx, patient_id, after=page.after, limit=page.limit + 1)
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="DiagnosticReport",
            patient_id=patient_id,
            details=decision.explained(),
        )
    )
    return page_of([ResultResponse.of(row) for row in found], page, key=lambda r: r.result_id)
