"""HTTP in: invoices and acts as PDF."""

import asyncio
from uuid import UUID

from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError
from clinic_shared.routing import ClinicRouter, CurrentContext, CurrentRuntime
from clinic_shared.service import Runtime
from fastapi import Response
from sqlalchemy import select

from clinic_billing import invoices
from clinic_billing.domain import Invoice, InvoiceKind
from clinic_billing.papers.typesetting import Paper, Printed, typeset
from clinic_billing.tables import centre, service

router = ClinicRouter(tags=["billing"])
PDF = "application/pdf"


class NothingRenderedError(DomainError):
    """An advance asks for money; no service has been rendered for it."""

    slug = "nothing-rendered"
    title = "There is no act of an advance"
    fix = "Ask for the act of the invoice that the visit has had."


@router.get(
    "/v1/invoices/{invoice_id}/pdf",
    permission="invoices.read",
    transactional=False,
    operation_id="getInvoicePaper",
    response_class=Response,
    responses={200: {"content": {PDF: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_invoice_paper(runtime: CurrentRuntime, context: CurrentContext, invoice_id: UUID) -> Response:
    """Return an invoice as a PDF, with what has been paid of it until now."""
    return await _print(Paper.INVOICE, runtime, context, invoice_id)


@router.get(
    "/v1/invoices/{invoice_id}/act",
    permission="invoices.read",
    transactional=False,
    operation_id="getInvoiceAct",
    response_class=Response,
    responses={200: {"content": {PDF: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_invoice_act(runtime: CurrentRuntime, context: CurrentContext, invoice_id: UUID) -> Response:
    """Return the act of the services that an invoice is for, as a PDF to be signed."""
    return await _print(Paper.ACT, runtime, context, invoice_id)


async def _print(paper: Paper, runtime: Runtime, context: Context, invoice_id: UUID) -> Response:
    async with runtime.database.transaction(context) as tx:
        invoice = await invoices.read_invoice(tx, invoice_id, caller=context.principal)
        if paper is Paper.ACT and invoice.kind is InvoiceKind.ADVANCE:
            raise NothingRenderedError
        printed = await _printed(tx, invoice)
    # Typesetting takes its time, and a connection must not wait for it.
    document = await asyncio.to_thread(typeset, paper, printed)
    name = f"{paper.value}-{invoice.number}.pdf"
    headers = {"Content-Disposition": f'inline; filename="{name}"'}
    return Response(document, media_type=PDF, headers=headers)


async def _printed(tx: Transaction, invoice: Invoice) -> Printed:
    seller = await tx.fetch_one(
        select(centre.c.legal_entity_name).where(centre.c.centre_id == invoice.centre_id)
    )
    codes = [line.service_code for line in invoice.lines]
    rows = await tx.fetch_all(select(service.c.code, service.c.name).where(service.c.code.in_(codes)))
    return Printed(
        invoice=invoice,
        seller=seller.legal_entity_name if seller else "",
        names={row.code: row.name for row in rows},
    )
