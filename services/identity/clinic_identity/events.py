"""Events out: each carries the aggregate's resulting state (contracts/events/identity)."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from clinic_shared.auth import LEEWAY_SECONDS, LIFETIME_SECONDS
from clinic_shared.events import Event, wire_id, wire_instant
from clinic_shared.ids import uuid7
from sqlalchemy import Row

from clinic_identity.domain import Account, AccountKind, Centre, Department, Session, StaffMember
from clinic_identity.oauth_domain import Client

_LONGEST_USE = timedelta(seconds=LIFETIME_SECONDS + LEEWAY_SECONDS)
"""Verifiers forgive clocks that differ, so a token is accepted a little past its expiry."""


def centre_event(name: str, centre: Centre) -> Event:
    """`name` is centre-opened or centre-changed."""
    data = {
        "centre_id": str(centre.centre_id),
        "version": centre.version,
        "code": centre.code,
        "name": centre.name,
        "legal_entity_id": str(centre.legal_entity_id),
        "legal_entity_name": centre.legal_entity_name,
        "currency": centre.currency,
        "time_zone": centre.time_zone,
        "language": centre.language,
        "address": centre.address,
        "phone": centre.phone,
        "status": centre.status,
        "opened_at": wire_instant(centre.opened_at),
    }
    if name == "centre-changed":
        data["changed_at"] = wire_instant(centre.changed_at)
    return Event(
        type=f"identity.{name}.v1", subject=centre.centre_id, aggregate_version=centre.version, data=data
    )


def department_event(name: str, department: Department) -> Event:
    """`name` is department-opened, department-changed or department-closed."""
    data = {
        "department_id": str(department.department_id),
        "version": department.version,
        "centre_id": str(department.centre_id),
        "code": department.code,
        "name": department.name,
        "specialty": department.specialty,
        "status": department.status,
        "opened_at": wire_instant(department.opened_at),
    }
    if name == "department-changed":
        data["changed_at"] = wire_instant(department.changed_at)
    if name == "department-closed":
        data["closed_at"] = wire_instant(department.closed_at)
    return Event(
        type=f"identity.{name}.v1",
        subject=department.department_id,
        aggregate_version=department.version,
        data=data,
    )


def staff_event(name: str, staff: StaffMember) -> Event:
    """`name` is staff-member-added, staff-member-moved or staff-member-deactivated."""
    data = {
        "staff_id": str(staff.staff_id),
        "version": staff.version,
        "roles": sorted(staff.roles),
        "centre_ids": sorted(map(str, staff.centre_ids)),
        "department_ids": sorted(map(str, staff.department_ids)),
        "practitioner": staff.practitioner,
        "specialty": staff.specialty,
        "active": staff.active,
        "added_at": wire_instant(staff.added_at),
    }
    if name == "staff-member-moved":
        data["moved_at"] = wire_instant(staff.moved_at)
    if name == "staff-member-deactivated":
        data["deactivated_at"] = wire_instant(staff.deactivated_at)
    return Event(
        type=f"identity.{name}.v1",
        subject=staff.staff_id,
        aggregate_version=staff.version,
        data=data,
        private={"name": {"family": staff.family, "given": staff.given, "patronymic": staff.patronymic}},
    )


def session_revoked(session: Session, *, kind: str, at: datetime, reason_code: str) -> Event:
    """One session ended before its tokens did. A session ends once, so this is its only version."""
    return _revoked(
        subject=session.session_id,
        version=1,
        principal_id=session.account_id,
        kind=kind,
        session_id=session.session_id,
        issued_before=at,
        reason_code=reason_code,
    )


def tokens_revoked(
    principal_id: UUID, *, kind: str, version: int, issued_before: datetime, reason_code: str
) -> Event:
    """All tokens of a principal made before are void: those of a client, or with rights of the past."""
    return _revoked(
        subject=principal_id,
        version=version,
        principal_id=principal_id,
        kind=kind,
        session_id=None,
        issued_before=issued_before,
        reason_code=reason_code,
    )


def _revoked(
    *,
    subject: UUID,
    version: int,
    principal_id: UUID,
    kind: str,
    session_id: UUID | None,
    issued_before: datetime,
    reason_code: str,
) -> Event:
    return Event(
        type="identity.session-revoked.v1",
        subject=subject,
        aggregate_version=version,
        data={
            "principal_id": str(principal_id),
            "principal_kind": kind,
            "session_id": None if session_id is None else str(session_id),
            "issued_before": wire_instant(issued_before),
            "expires_at": wire_instant(issued_before + _LONGEST_USE),
            "reason_code": reason_code,
        },
    )


def lab_event(name: str, lab: Client, *, now: datetime) -> Event:
    """`name` is lab-registered or lab-changed. A lab checks in by HTTP Basic where only digests are known."""
    data = {
        "partner_id": str(lab.id),
        "version": lab.version,
        "client_id": lab.client_id,
        "name": lab.name,
        "active": lab.active,
        "registered_at": wire_instant(lab.registered_at),
    }
    if name == "lab-changed":
        data["changed_at"] = wire_instant(lab.changed_at)
    return Event(
        type=f"identity.{name}.v1",
        subject=lab.id,
        aggregate_version=lab.version,
        data=data,
        private={"secret_digests": lab.secret_digests(now)},
    )


def account_dormant(use: Row[Any], *, state: str, closes_at: datetime) -> Event:
    """A member of staff's login that nobody uses: `state` is warned or closed."""
    return Event(
        type="identity.account-dormant.v1",
        subject=use.account_id,
        aggregate_version=use.version,
        data={
            "staff_id": str(use.account_id),
            "version": use.version,
            "state": state,
            "last_used_at": wire_instant(use.last_used_at),
            "closes_at": wire_instant(closes_at),
        },
    )


def access_link_requested(
    account: Account, *, request_id: UUID, purpose: str, page_url: str, at: datetime, expires_at: datetime
) -> Event:
    return Event(
        type="identity.access-link-requested.v1",
        subject=request_id,
        aggregate_version=1,
        patient_id=account.patient_id,
        data={
            "request_id": str(request_id),
            "version": 1,
            "purpose": purpose,
            **_whose(account),
            "page_url": page_url,
            "requested_at": wire_instant(at),
            "expires_at": wire_instant(expires_at),
        },
    )


def new_device_seen(account: Account, session: Session, *, device_id: UUID) -> Event:
    return Event(
        type="identity.new-device-seen.v1",
        subject=device_id,
        aggregate_version=1,
        patient_id=account.patient_id,
        data={
            "device_id": str(device_id),
            "version": 1,
            **_whose(account),
            "seen_at": wire_instant(session.started_at),
        },
        private={"address": session.address, "agent": session.agent},
    )


def password_changed(account: Account, *, at: datetime) -> Event:
    """A password that its owner had chosen is another one."""
    change_id = uuid7()
    return Event(
        type="identity.password-changed.v1",
        subject=change_id,
        aggregate_version=1,
        patient_id=account.patient_id,
        data={
            "change_id": str(change_id),
            "version": 1,
            **_whose(account),
            "changed_at": wire_instant(at),
        },
    )


def one_time_code_requested(
    account: Account, *, request_id: UUID, public_key: str, at: datetime, expires_at: datetime
) -> Event:
    return Event(
        type="identity.one-time-code-requested.v1",
        subject=request_id,
        aggregate_version=1,
        patient_id=account.patient_id,
        data={
            "request_id": str(request_id),
            "version": 1,
            "patient_id": wire_id(account.patient_id),
            "public_key": public_key,
            "requested_at": wire_instant(at),
            "expires_at": wire_instant(expires_at),
        },
    )


def _whose(account: Account) -> dict[str, str | None]:
    staff_id = account.account_id if account.kind is AccountKind.STAFF else None
    return {"staff_id": wire_id(staff_id), "patient_id": wire_id(account.patient_id)}
