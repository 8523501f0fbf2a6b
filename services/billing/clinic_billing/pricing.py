"""What things cost, from which date on. A new price ends the one before it; nothing is overwritten."""

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ReferenceNotYetKnownError
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.problems import constraint_of
from sqlalchemy.exc import IntegrityError

from clinic_billing import invoicing, store, tables
from clinic_billing.domain import PATIENT, Centre, Price, PriceId, PriceKind
from clinic_billing.errors import CurrencyMismatchError, PriceAlreadySetError


@dataclass(frozen=True, kw_only=True)
class SetPrice:
    centre_id: UUID
    kind: PriceKind
    service_code: str
    amount_minor: int
    currency: str
    valid_from: date
    department_id: UUID | None = None
    payer: str = PATIENT
    list_id: UUID | None = None


async def set_price(tx: Transaction, command: SetPrice, *, caller: Principal) -> Price:
    """Set a price from a date until the next one begins. Visits that waited for it are invoiced soon."""
    caller.require_place(centre_id=command.centre_id, department_id=command.department_id)
    await _check_references(tx, command)
    await store.hold_prices(tx, command.centre_id, exclusive=True)
    price = await _fit_in(tx, command)
    try:
        await store.add_price(tx, price)
    except IntegrityError as error:
        # Unreachable while everyone holds the prices first; the constraint is what makes that a proof.
        if constraint_of(error) == tables.PRICE_ONE_AT_A_TIME:
            raise PriceAlreadySetError from error
        raise
    await invoicing.invoice_waiting_visits(tx, command.centre_id, cause=price.price_id, cause_version=1)
    tx.audit(
        AuditEntry(
            action=Action.CREATE,
            resource_type="Price",
            resource_id=price.price_id,
            details={"service_code": price.service_code, "valid_from": price.valid_from.isoformat()},
        )
    )
    return price


async def _check_references(tx: Transaction, command: SetPrice) -> None:
    centre: Centre | None = await store.find_centre(tx, command.centre_id)
    if centre is None:
        raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
    if centre.currency != command.currency:
        raise CurrencyMismatchError(currency=centre.currency)
    if command.kind is PriceKind.SERVICE and not await store.is_service_known(tx, command.service_code):
        raise ReferenceNotYetKnownError("The service is not known here yet.", reference="service_code")


async def _fit_in(tx: Transaction, command: SetPrice) -> Price:
    """End the price that is valid on the first day, and make the new one end where a later one begins."""
    others = await store.list_prices_of(
        tx,
        command.centre_id,
        command.kind,
        command.service_code,
        department_id=command.department_id,
        payer=command.payer,
    )
    earlier = [price for price in others if price.valid_from <= command.valid_from]
    later = [price for price in others if price.valid_from > command.valid_from]
    if earlier and earlier[-1].valid_from == command.valid_from:
        raise PriceAlreadySetError(price_id=str(earlier[-1].price_id))
    if earlier:
        await store.end_price(tx, earlier[-1], on=command.valid_from)
    return Price(
        price_id=PriceId(uuid7()),
        centre_id=command.centre_id,
        kind=command.kind,
        service_code=command.service_code,
        amount_minor=command.amount_minor,
        currency=command.currency,
        valid_from=command.valid_from,
        valid_until=later[0].valid_from if later else None,
        set_at=tx.now,
        department_id=command.department_id,
        payer=command.payer,
        list_id=command.list_id,
    )
