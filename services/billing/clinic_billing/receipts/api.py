"""HTTP in: receipts that are owed, late or failed, and whose they are."""

from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.errors import ConcealedError, ForbiddenError, NotFoundError
from clinic_shared.routing import Caller, ClinicRouter, Page, PageQuery, Tx, page_of

from clinic_billing import store as invoice_store
from clinic_billing.invoices import visible, within
from clinic_billing.receipts import store
from clinic_billing.receipts.models import (
    FiscalProfileRequest,
    FiscalProfileResponse,
    ReceiptCorrectionRequest,
    ReceiptResponse,
)
from clinic_billing.receipts.receipt import Receipt, ReceiptStatus

router = ClinicRouter(tags=["receipts"])


@router.get("/v1/receipts", permission="payments.read", operation_id="listReceipts")
async def list_receipts(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    status: ReceiptStatus | None = None,
    payment_id: UUID | None = None,
) -> Page[ReceiptResponse]:
    """List receipts the caller may see: a patient their own, staff those of their places.

    `failed` is what waits for a biller; `pending` and `sent` are taken care of.
    """
    found = await store.list_within(
        tx,
        within=within(caller),
        status=status,
        payment_id=payment_id,
        after=page.after,
        limit=page.limit + 1,
    )
    for receipt in found:
        _audit(tx, Action.READ, receipt)
    return page_of([ReceiptResponse.of(r) for r in found], page, key=lambda r: r.receipt_id)


@router.get("/v1/receipts/{receipt_id}", permission="payments.read", operation_id="getReceipt")
async def get_receipt(tx: Tx, caller: Caller, receipt_id: UUID) -> ReceiptResponse:
    """Return one receipt."""
    receipt = await _visible(tx, await store.find(tx, receipt_id), caller)
    _audit(tx, Action.READ, receipt)
    return ReceiptResponse.of(receipt)


@router.post("/v1/receipts/{receipt_id}/retry", permission="payments.manage", operation_id="retryReceipt")
async def retry_receipt(tx: Tx, caller: Caller, receipt_id: UUID) -> ReceiptResponse:
    """Send a failed receipt to the registrar once more. It hasn't been when this answers."""
    failed = await _visible(tx, await store.lock(tx, receipt_id), caller)
    return await _again(tx, failed, failed.again())


@router.post(
    "/v1/receipts/{receipt_id}/correction", permission="payments.manage", operation_id="correctReceipt"
)
async def correct_receipt(
    tx: Tx, caller: Caller, receipt_id: UUID, body: ReceiptCorrectionRequest
) -> ReceiptResponse:
    """Register a correction receipt in place of one that failed and is too late to be an ordinary one."""
    failed = await _visible(tx, await store.lock(tx, receipt_id), caller)
    return await _again(tx, failed, failed.again(body.value()))


@router.put(
    "/v1/receipts/profiles/{legal_entity_id}",
    permission="payments.manage",
    operation_id="setFiscalProfile",
)
async def set_fiscal_profile(
    tx: Tx, caller: Caller, legal_entity_id: UUID, body: FiscalProfileRequest
) -> FiscalProfileResponse:
    """Say whose receipts a legal entity's are. Receipts that waited for it are sent within seconds."""
    if not caller.network:
        raise ForbiddenError("A legal entity is the network's.")
    await store.keep_company(tx, legal_entity_id, body.company())
    await store.wake(tx, legal_entity_id)
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="FiscalProfile", resource_id=legal_entity_id))
    return FiscalProfileResponse(legal_entity_id=legal_entity_id, **vars(body.company()))


@router.get(
    "/v1/receipts/profiles/{legal_entity_id}",
    permission="payments.manage",
    operation_id="getFiscalProfile",
)
async def get_fiscal_profile(tx: Tx, legal_entity_id: UUID) -> FiscalProfileResponse:
    """Return whose receipts a legal entity's are."""
    company = await store.find_company(tx, legal_entity_id)
    if company is None:
        raise NotFoundError
    return FiscalProfileResponse(legal_entity_id=legal_entity_id, **vars(company))


async def _again(tx: Tx, failed: Receipt, again: Receipt) -> ReceiptResponse:
    await store.save(tx, again, version_before=failed.version)
    _audit(tx, Action.EXECUTE, again)
    return ReceiptResponse.of(again)


async def _visible(tx: Tx, receipt: Receipt | None, caller: Caller) -> Receipt:
    """Raises NotFoundError, ConcealedError."""
    if receipt is None:
        raise NotFoundError
    if receipt.invoice_id is not None:
        visible(await invoice_store.find_invoice(tx, receipt.invoice_id), caller)
    elif not caller.network:
        raise ConcealedError
    return receipt


def _audit(tx: Tx, action: Action, receipt: Receipt) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Receipt",
            resource_id=receipt.receipt_id,
            patient_id=receipt.patient_id,
            details={"status": receipt.status.value},
        )
    )
