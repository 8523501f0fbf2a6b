"""The patient's consent before their data go to somebody outside the network, for another purpose than they came for.

Asked at the moment of the decision, and again when the data leave: a withdrawal counts from the moment it is said. Of
several records of one person each must agree, and one refusal is a refusal.
"""

from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError

from clinic_patients import chart_store
from clinic_patients.chart_domain import Consent, ConsentStatus

SHARING = "sharing"


class ConsentMissingError(ForbiddenError):
    """The patient hasn't agreed that their data are handed to others, has withdrawn it, or it has expired."""

    slug: ClassVar[str] = "consent-missing"
    title: ClassVar[str] = "The patient hasn't agreed to this"
    fix: ClassVar[str] = (
        "Ask the patient, and record a consent of the kind `sharing`. An emergency needs none: break-glass."
    )


async def require_consent(tx: Transaction, record_ids: Sequence[UUID]) -> Consent:
    """Return the consent that data may go outside. Raises ConsentMissingError."""
    said = [one for one in await chart_store.list_consents(tx, record_ids) if one.kind == SHARING]
    in_force = [
        one
        for one in said
        if one.status is ConsentStatus.GRANTED and (one.expires_at is None or one.expires_at > tx.now)
    ]
    if not in_force or any(one.status is ConsentStatus.WITHDRAWN for one in said):
        raise ConsentMissingError
    return max(in_force, key=lambda one: one.changed_at)
