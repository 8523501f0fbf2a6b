"""Who is calling, as every service sees it: pure data taken from a verified token."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from clinic_shared.errors import ConcealedError, ForbiddenError

AAL1, AAL2 = "aal1", "aal2"
"""How strongly somebody showed who they are, as `acr` in tokens: NIST SP 800-63B's levels, one factor or two."""

PrincipalKind = Literal["staff", "patient", "client", "system", "anonymous"]


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A verified caller.

    `scopes` are OAuth scopes such as `appointments.book`: what may be done at all.
    `network`, `centre_ids` and `department_ids` say where; an empty scope of place means nowhere.
    """

    subject: UUID
    kind: PrincipalKind
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    network: bool = False
    centre_ids: frozenset[UUID] = frozenset()
    department_ids: frozenset[UUID] = frozenset()
    patient_id: UUID | None = None
    patient_records: frozenset[UUID] = frozenset()
    """All records of the patient, `patient_id` among them, where several were merged."""
    session_id: UUID | None = None
    acr: str | None = None
    """How strongly they showed who they are (`step_up.py`), by `amr`'s means (RFC 8176), and when."""
    amr: tuple[str, ...] = ()
    authenticated_at: datetime | None = None
    token_id: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    """Thumbprint of the only certificate that the token may come with (`client_certificates.py`)."""

    def may(self, scope: str) -> bool:
        return scope in self.scopes

    @property
    def own_records(self) -> frozenset[UUID]:
        """The records that are the caller's as a patient."""
        return self.patient_records if self.patient_id is None else self.patient_records | {self.patient_id}

    def works_in(self, *, centre_id: UUID | None = None, department_id: UUID | None = None) -> bool:
        return (
            self.network
            or (centre_id is not None and centre_id in self.centre_ids)
            or (department_id is not None and department_id in self.department_ids)
        )

    def require_place(self, *, centre_id: UUID | None = None, department_id: UUID | None = None) -> None:
        """Refuse staff who work elsewhere. Raises ForbiddenError."""
        if not self.works_in(centre_id=centre_id, department_id=department_id):
            raise ForbiddenError("This centre or department is outside your scope.")

    def require_patient(self, patient_id: UUID) -> None:
        """Let a patient reach only their own data; others are judged by scope and place.

        Raises ConcealedError (a NotFoundError), so that nobody learns which patients exist.
        """
        if self.kind == "patient" and patient_id not in self.own_records:
            raise ConcealedError(patient_id=patient_id)


SYSTEM = Principal(subject=UUID(int=0), kind="system", network=True)
"""The platform itself: timers, projections, relays."""

ANONYMOUS = Principal(subject=UUID(int=0), kind="anonymous")
"""Whoever calls a public route: nobody has been told who they are yet."""
