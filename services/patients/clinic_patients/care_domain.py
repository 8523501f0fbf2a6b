"""Who has a patient in their care, and for how long: derived from what happens to the patient. Pure.

A relationship belongs to its source (an appointment, one side of a referral ...) and follows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from clinic_shared.policy import BREAK_GLASS

BEFORE_APPOINTMENT = timedelta(days=30)
AFTER_CARE = timedelta(days=90)
AFTER_REFERRAL = timedelta(days=30)


class CareKind(StrEnum):
    APPOINTMENT = "appointment"
    ENCOUNTER = "encounter"
    LAB_ORDER = "lab-order"
    REFERRAL = "referral"
    """The side that is asked; it has the patient in its care once it has accepted."""
    REFERRAL_SENT = "referral-sent"
    BREAK_GLASS = BREAK_GLASS


@dataclass(frozen=True, kw_only=True)
class CareRelationship:
    """Half-open in time. Without a practitioner, anybody of the department has it; with both, either.

    `version` is the source's: what arrives late changes nothing.
    """

    kind: CareKind
    source_id: UUID
    version: int
    patient_id: UUID
    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None
    begins_at: datetime
    ends_at: datetime | None

    @property
    def relationship_id(self) -> UUID:
        return uuid5(NAMESPACE_OID, f"polyclinic:{self.kind}:{self.source_id}")

    def differs_from(self, kept: Mapping[str, Any] | None) -> bool:
        """Tell whether it means something else than before: most versions of a source change nothing here."""
        names = ("patient_id", "practitioner_id", "centre_id", "department_id", "begins_at", "ends_at")
        return kept is None or any(getattr(self, name) != kept[name] for name in names)


@dataclass(frozen=True, kw_only=True)
class Carers:
    """Whom a source names."""

    practitioner_id: UUID | None
    centre_id: UUID | None
    department_id: UUID | None


def of_appointment(
    appointment_id: UUID,
    version: int,
    patient_id: UUID,
    carers: Carers,
    *,
    status: str,
    starts_at: datetime,
    now: datetime,
) -> CareRelationship:
    """From a month before the visit until three after it; a visit that won't be has no such time."""
    begins_at = starts_at - BEFORE_APPOINTMENT
    off = status in {"cancelled", "missed"}
    return CareRelationship(
        kind=CareKind.APPOINTMENT,
        source_id=appointment_id,
        version=version,
        patient_id=patient_id,
        **vars(carers),
        begins_at=min(begins_at, now) if off else begins_at,
        ends_at=now if off else starts_at + AFTER_CARE,
    )


def of_lab_order(
    lab_order_id: UUID,
    version: int,
    patient_id: UUID,
    carers: Carers,
    *,
    status: str,
    placed_at: datetime,
    now: datetime,
) -> CareRelationship:
    """Who orders must see what comes back."""
    return CareRelationship(
        kind=CareKind.LAB_ORDER,
        source_id=lab_order_id,
        version=version,
        patient_id=patient_id,
        **vars(carers),
        begins_at=placed_at,
        ends_at=max(now, placed_at) if status == "cancelled" else placed_at + AFTER_CARE,
    )


def of_encounter(
    encounter_id: UUID, version: int, patient_id: UUID, carers: Carers, *, started_at: datetime, now: datetime
) -> CareRelationship:
    """Who has seen the patient goes on to answer for it, counted from when it was written down."""
    return CareRelationship(
        kind=CareKind.ENCOUNTER,
        source_id=encounter_id,
        version=version,
        patient_id=patient_id,
        **vars(carers),
        begins_at=min(started_at, now),
        ends_at=now + AFTER_CARE,
    )


def of_referral(
    referral_id: UUID,
    version: int,
    patient_id: UUID,
    *,
    sender: Carers,
    receiver: Carers,
    status: str,
    created_at: datetime,
    accepted_at: datetime | None,
    closed_at: datetime | None,
    now: datetime,
) -> list[CareRelationship]:
    """Both sides, until a month after the referral is closed; who declines is out of it at once."""
    closing = closed_at + AFTER_REFERRAL if closed_at else None
    sent = CareRelationship(
        kind=CareKind.REFERRAL_SENT,
        source_id=referral_id,
        version=version,
        patient_id=patient_id,
        **vars(sender),
        begins_at=created_at,
        ends_at=closing,
    )
    if accepted_at is None:
        return [sent]
    asked = CareRelationship(
        kind=CareKind.REFERRAL,
        source_id=referral_id,
        version=version,
        patient_id=patient_id,
        **vars(receiver),
        begins_at=accepted_at,
        ends_at=max(now, accepted_at) if status == "declined" else closing,
    )
    return [sent, asked]
