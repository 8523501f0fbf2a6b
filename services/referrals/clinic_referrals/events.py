"""Events out: each carries the whole referral (contracts/events/referrals)."""

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_referrals.domain import Referral, ReferralStatus

_NAMES = {
    ReferralStatus.CREATED: "referral-created",
    ReferralStatus.ACCEPTED: "referral-accepted",
    ReferralStatus.DECLINED: "referral-declined",
    ReferralStatus.BOOKED: "referral-booked",
    ReferralStatus.SEEN: "referral-seen",
    ReferralStatus.REPORTED: "referral-reported",
    ReferralStatus.CLOSED: "referral-closed",
}


def referral_event(referral: Referral) -> Event:
    """Return the event of the referral's present status, such as ReferralAccepted."""
    r = referral
    return Event(
        type=f"referrals.{_NAMES[r.status]}.v1",
        subject=r.referral_id,
        aggregate_version=r.version,
        patient_id=r.patient_id,
        data={
            "referral_id": str(r.referral_id),
            "version": r.version,
            "status": r.status.value,
            "patient_id": str(r.patient_id),
            "priority": r.priority.value,
            "from_centre_id": str(r.sender.centre_id),
            "from_department_id": str(r.sender.department_id),
            "from_practitioner_id": wire_id(r.from_practitioner_id),
            "to_centre_id": str(r.receiver.centre_id),
            "to_department_id": str(r.receiver.department_id),
            "to_practitioner_id": wire_id(r.to_practitioner_id),
            "service_code": r.service_code,
            "source_encounter_id": wire_id(r.source_encounter_id),
            "appointment_id": wire_id(r.appointment_id),
            "encounter_id": wire_id(r.encounter_id),
            "created_at": wire_instant(r.created_at),
            "accepted_at": wire_instant(r.accepted_at),
            "declined_at": wire_instant(r.declined_at),
            "booked_at": wire_instant(r.booked_at),
            "seen_at": wire_instant(r.seen_at),
            "reported_at": wire_instant(r.reported_at),
            "closed_at": wire_instant(r.closed_at),
            "decline_reason_code": r.decline_reason_code,
            "close_reason_code": r.close_reason_code,
        },
        private={"question": r.question, "outcome": r.outcome, "decline_comment": r.decline_comment},
    )
