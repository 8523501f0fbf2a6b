"""Who reaches which referral: its patient, who wrote or was asked for it, both departments."""

from clinic_shared import care
from clinic_shared.database import Transaction
from clinic_shared.errors import ConcealedError
from clinic_shared.policy import Decision, Place, Record, current
from clinic_shared.policy_filters import Columns, visible
from clinic_shared.principal import Principal
from sqlalchemy import ColumnElement

from clinic_referrals.domain import Referral
from clinic_referrals.tables import referral as table

READ = "referrals.read"

_COLUMNS = Columns(
    patient_id=table.c.patient_id,
    owner_ids=[table.c.from_practitioner_id, table.c.to_practitioner_id],
    places=[
        (table.c.from_centre_id, table.c.from_department_id),
        (table.c.to_centre_id, table.c.to_department_id),
    ],
)


def permit(tx: Transaction, referral: Referral | None, *, caller: Principal) -> tuple[Referral, Decision]:
    """Return the referral, and why the caller may know of it. Raises ConcealedError."""
    if referral is None:
        raise ConcealedError
    record = Record(
        patient_id=referral.patient_id,
        owner_ids=[referral.from_practitioner_id, referral.to_practitioner_id],
        places=[
            Place(centre_id=place.centre_id, department_id=place.department_id)
            for place in (referral.sender, referral.receiver)
        ],
    )
    return referral, care.permit(caller, READ, record, now=tx.now)


def visible_to(tx: Transaction, *, caller: Principal) -> ColumnElement[bool]:
    return visible(current(), caller, READ, _COLUMNS, now=tx.now)
