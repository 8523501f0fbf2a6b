"""HTTP in: the bank's statements, runs of reconciliation, and the work list of what doesn't agree."""

import hashlib
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.errors import ForbiddenError, InvalidRequestError, NotFoundError
from clinic_shared.principal import Principal
from clinic_shared.routing import (
    Caller,
    ClinicRouter,
    CurrentContext,
    CurrentRuntime,
    Page,
    PageQuery,
    RawBody,
    Tx,
    page_of,
)
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, select, update

from clinic_billing.models import Request
from clinic_billing.reconciliation import running, statements
from clinic_billing.reconciliation.comparing import Kind
from clinic_billing.reconciliation.tables import discrepancy

router = ClinicRouter(tags=["reconciliation"])
MOST_BYTES = 8 * 1024 * 1024


class StatementResponse(BaseModel):
    statement_id: UUID
    format: Literal["csv", "camt.053"]
    lines: int
    new_lines: Annotated[int, Field(description="That weren't known from another statement")]


class ReconciliationResponse(BaseModel):
    day: date
    discrepancies: int
    providers_asked: Annotated[int, Field(description="Payments that were read at their provider")]
    providers_away: Annotated[int, Field(description="Those that could not be read: run it again")]


class DiscrepancyResponse(BaseModel):
    discrepancy_id: UUID
    day: date
    kind: Kind
    subject: Annotated[
        str, Field(description="A payment, a movement, a bank's line, or provider and currency")
    ]
    provider: str | None
    expected_minor: int | None
    found_minor: int | None
    currency: str | None
    found_at: datetime
    state: Literal["open", "gone", "settled"]
    settled_at: datetime | None
    settled_by: UUID | None
    note: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> "DiscrepancyResponse":
        return cls(**row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for it


class SettleRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"note": "The bank's own fee, booked by accounting"}]}
    )

    note: Annotated[str, Field(min_length=3, max_length=500)]


@router.post(
    "/v1/payments/reconciliation/statements/{legal_entity_id}",
    permission="payments.manage",
    status_code=201,
    media_types=("text/csv", "application/xml", "text/xml"),
    max_body_bytes=MOST_BYTES,
    operation_id="importBankStatement",
)
async def import_bank_statement(
    tx: Tx, caller: Caller, legal_entity_id: UUID, body: RawBody
) -> StatementResponse:
    """Import a bank's statement: CAMT.053, or CSV with the columns reference, date, amount, currency,
    counterparty and purpose. The same file again, or an overlapping one, brings each line once.
    """
    _require_network(caller)
    fmt, lines = statements.read(body)
    statement_id, new_lines = await running.keep_statement(
        tx,
        legal_entity_id=legal_entity_id,
        digest=hashlib.sha256(body).digest(),
        fmt=fmt,
        lines=lines,
        by=caller.subject,
    )
    tx.audit(AuditEntry(action=Action.CREATE, resource_type="BankStatement", resource_id=statement_id))
    return StatementResponse(statement_id=statement_id, format=fmt, lines=len(lines), new_lines=new_lines)


@router.post(
    "/v1/payments/reconciliation/days/{day}",
    permission="payments.manage",
    transactional=False,
    operation_id="reconcileDay",
)
async def reconcile_day(
    runtime: CurrentRuntime, context: CurrentContext, day: date
) -> ReconciliationResponse:
    """Compare a day (of UTC) again, now. It is done once by itself three hours after the day ends."""
    _require_network(context.principal)
    if day > runtime.clock.now().date():
        raise InvalidRequestError("The day hasn't begun.")
    outcome = await running.reconcile(runtime, day)
    return ReconciliationResponse(
        day=day,
        discrepancies=len(outcome.found),
        providers_asked=outcome.asked,
        providers_away=outcome.away,
    )


@router.get(
    "/v1/payments/reconciliation/discrepancies",
    permission="payments.manage",
    operation_id="listDiscrepancies",
)
async def list_discrepancies(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    state: Literal["open", "gone", "settled"] = "open",
    day: date | None = None,
) -> Page[DiscrepancyResponse]:
    """List what doesn't agree between provider, ledger, receipts and bank; `open` is the work list."""
    _require_network(caller)
    found = select(discrepancy).where(discrepancy.c.state == state)
    if day is not None:
        found = found.where(discrepancy.c.day == day)
    if page.after is not None:
        found = found.where(discrepancy.c.discrepancy_id > page.after)
    rows = await tx.fetch_all(found.order_by(discrepancy.c.discrepancy_id).limit(page.limit + 1))
    return page_of([DiscrepancyResponse.of(row) for row in rows], page, key=lambda d: d.discrepancy_id)


@router.post(
    "/v1/payments/reconciliation/discrepancies/{discrepancy_id}/settle",
    permission="payments.manage",
    operation_id="settleDiscrepancy",
)
async def settle_discrepancy(
    tx: Tx, caller: Caller, discrepancy_id: UUID, body: SettleRequest
) -> DiscrepancyResponse:
    """Take a discrepancy off the work list, with a note of why it is one."""
    _require_network(caller)
    settled = (
        update(discrepancy)
        .where(discrepancy.c.discrepancy_id == discrepancy_id, discrepancy.c.state == "open")
        .values(state="settled", settled_at=tx.now, settled_by=caller.subject, note=body.note)
    )
    row = await tx.fetch_one(settled.returning(discrepancy))
    if row is None:
        raise NotFoundError
    tx.audit(AuditEntry(action=Action.UPDATE, resource_type="Discrepancy", resource_id=discrepancy_id))
    return DiscrepancyResponse.of(row)


def _require_network(caller: Principal) -> None:
    """Raises ForbiddenError: accounts and statements are a legal entity's, not a centre's."""
    if not caller.network:
        raise ForbiddenError("A legal entity's accounts are the network's.")
