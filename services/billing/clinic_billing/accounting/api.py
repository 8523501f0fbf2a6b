"""HTTP in: a day's documents for accounting."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.errors import ForbiddenError, InvalidRequestError
from clinic_shared.routing import Caller, ClinicRouter, Tx
from fastapi import Response
from pydantic import BaseModel, Field

from clinic_billing.accounting.documents import Export, to_csv, to_xml
from clinic_billing.accounting.exporting import export_day

router = ClinicRouter(tags=["accounting"])


class DayTotalResponse(BaseModel):
    kind: Literal["sale", "payment", "cash_in", "refund", "cash_out", "set_off", "write_off"]
    currency: str
    documents: int
    amount_minor: int


class DayTotalsResponse(BaseModel):
    legal_entity_id: UUID
    day: Annotated[date, Field(description="Of UTC")]
    totals: list[DayTotalResponse]


@router.get(
    "/v1/payments/accounting/{legal_entity_id}/days/{day}",
    permission="payments.manage",
    operation_id="exportAccountingDay",
    responses={
        200: {
            "content": {
                "application/xml": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
            }
        }
    },
    response_class=Response,
)
async def export_accounting_day(
    tx: Tx, caller: Caller, legal_entity_id: UUID, day: date, form: Literal["xml", "csv"] = "xml"
) -> Response:
    """Export a day's documents for 1C, as XML in the shape of EnterpriseData or as CSV.

    Each document has a GUID that stays and a version: importing a day again changes nothing. A day that is over
    is always exported as the same bytes.
    """
    export = await _export(tx, caller, legal_entity_id, day)
    if form == "csv":
        return Response(to_csv(export.documents), media_type="text/csv; charset=utf-8")
    return Response(to_xml(export), media_type="application/xml")


@router.get(
    "/v1/payments/accounting/{legal_entity_id}/days/{day}/totals",
    permission="payments.manage",
    operation_id="readAccountingTotals",
)
async def read_accounting_totals(
    tx: Tx, caller: Caller, legal_entity_id: UUID, day: date
) -> DayTotalsResponse:
    """Return a day's totals, to be compared with what accounting has imported."""
    export = await _export(tx, caller, legal_entity_id, day)
    totals = [
        DayTotalResponse.model_validate(
            {
                "kind": kind.name.lower(),
                "currency": currency,
                "documents": count,
                "amount_minor": amount,
            }
        )
        for (kind, currency), (count, amount) in export.totals().items()
    ]
    return DayTotalsResponse(legal_entity_id=legal_entity_id, day=day, totals=totals)


async def _export(tx: Tx, caller: Caller, legal_entity_id: UUID, day: date) -> Export:
    if not caller.network:
        raise ForbiddenError("A legal entity's accounts are the network's.")
    if day > tx.now.date():
        raise InvalidRequestError("The day hasn't begun.")
    tx.audit(
        AuditEntry(
            action=Action.READ,
            resource_type="AccountingExport",
            resource_id=legal_entity_id,
            details={"day": day.isoformat()},
        )
    )
    return await export_day(tx, legal_entity_id, day)
