"""The people who work here: who they are, what they may do and where."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import DomainError, ForbiddenError, NotFoundError
from clinic_shared.principal import Principal
from sqlalchemy import Row

from clinic_identity import store
from clinic_identity.access_links import Link, find_sent_link, issue_link
from clinic_identity.accounts import Invitation, add_account, close_account, renew_password
from clinic_identity.desk import Desk
from clinic_identity.domain import (
    ADMINISTRATOR,
    Account,
    AccountKind,
    DeactivatedError,
    StaffMember,
    UnknownReferenceError,
    next_whole_second,
    unknown_among,
)
from clinic_identity.dormancy import forget, is_closed
from clinic_identity.events import staff_event, tokens_revoked
from clinic_identity.guarded_roles import is_last_administrator, require_freely_given
from clinic_identity.roles import require_roles


class LoginNotDormantError(DomainError):
    """Only what closed by itself is opened again; who was deactivated stays so."""

    slug = "login-not-dormant"
    title = "This login wasn't closed for not being used"
    fix = "Renew the password instead."


@dataclass(frozen=True, kw_only=True)
class Position:
    """What somebody does here, and where."""

    roles: tuple[str, ...]
    network: bool
    centre_ids: tuple[UUID, ...]
    department_ids: tuple[UUID, ...]
    practitioner: bool
    specialty: str | None


@dataclass(frozen=True, kw_only=True)
class PersonName:
    family: str
    given: str | None
    patronymic: str | None


async def add_staff_member(
    tx: Transaction,
    desk: Desk,
    *,
    name: PersonName,
    login: str,
    position: Position,
    caller: Principal,
) -> tuple[StaffMember, Invitation]:
    """Let somebody work here. The initial password is theirs to replace; nobody chooses it."""
    await _check_position(tx, position, caller)
    await require_freely_given(tx, position.roles, caller)
    invitation = await add_account(tx, desk, AccountKind.STAFF, login)
    member = await store_member(tx, invitation.account, name, position)
    return member, invitation


async def store_member(
    tx: Transaction, account: Account, name: PersonName, position: Position
) -> StaffMember:
    member = StaffMember(
        staff_id=account.account_id,
        version=1,
        family=name.family,
        given=name.given,
        patronymic=name.patronymic,
        roles=position.roles,
        network=position.network,
        centre_ids=position.centre_ids,
        department_ids=position.department_ids,
        practitioner=position.practitioner,
        specialty=position.specialty,
        active=True,
        added_at=tx.now,
    )
    await store.add_staff(tx, member)
    tx.emit(staff_event("staff-member-added", member))
    _audit(tx, Action.CREATE, member)
    return member


async def move_staff_member(
    tx: Transaction,
    staff_id: UUID,
    position: Position,
    *,
    expected_version: int | None,
    caller: Principal,
) -> StaffMember:
    """Change roles and places. Tokens with the old ones are void at once; a refresh brings the new ones."""
    account, old = await _lock(tx, staff_id, expected_version, caller)
    await _check_position(tx, position, caller)
    await require_freely_given(tx, set(position.roles) - set(old.roles), caller)
    moved = replace(
        old,
        version=old.version + 1,
        roles=position.roles,
        network=position.network,
        centre_ids=position.centre_ids,
        department_ids=position.department_ids,
        practitioner=position.practitioner,
        specialty=position.specialty,
        moved_at=tx.now,
    )
    await _save_moved(tx, account, moved)
    return moved


async def deactivate_staff_member(
    tx: Transaction, staff_id: UUID, *, expected_version: int | None, caller: Principal
) -> StaffMember:
    """Let somebody do nothing any more, now. What was booked with them stays, for people to move."""
    account, old = await _lock(tx, staff_id, expected_version, caller)
    if old.staff_id == caller.subject:
        raise ForbiddenError("Nobody can deactivate themselves.")
    return await _deactivate(tx, account, old, reason="deactivated")


async def let_go(tx: Transaction, staff_id: UUID, *, reason: str) -> None:
    """Deactivate whoever is to leave by now, if nobody has done so before."""
    found = await _find_active(tx, staff_id)
    if found is not None:
        await _deactivate(tx, *found, reason=reason)


async def take_role(tx: Transaction, staff_id: UUID, role: str, *, reason: str) -> bool:
    """Take a role away, now; says whether it is gone. The network's last administrator stays one."""
    found = await _find_active(tx, staff_id)
    if found is None or role not in found[1].roles:
        return True
    account, old = found
    if role == ADMINISTRATOR and await is_last_administrator(tx, staff_id):
        return False
    left = tuple(kept for kept in old.roles if kept != role)
    moved = replace(old, version=old.version + 1, roles=left, moved_at=tx.now)
    await _save_moved(tx, account, moved, reason=reason)
    return True


async def give_role(tx: Transaction, staff_id: UUID, role: str) -> None:
    """Give a role that two people have agreed on. Raises NotFoundError, DeactivatedError."""
    found = await _find_active(tx, staff_id)
    if found is None:
        raise DeactivatedError
    account, old = found
    if role not in old.roles:
        moved = replace(old, version=old.version + 1, roles=(*old.roles, role), moved_at=tx.now)
        await _save_moved(tx, account, moved, reason="role-agreed")


async def lock_member(tx: Transaction, staff_id: UUID, *, caller: Principal) -> StaffMember:
    """Lock somebody about whom the caller has a say. Raises NotFoundError, ForbiddenError, DeactivatedError."""
    return (await _lock(tx, staff_id, None, caller))[1]


async def _find_active(tx: Transaction, staff_id: UUID) -> tuple[Account, StaffMember] | None:
    account = await store.lock_account(tx, staff_id)
    member = await store.lock_staff(tx, staff_id)
    return (account, member) if account is not None and member is not None and member.active else None


async def _save_moved(
    tx: Transaction, account: Account, moved: StaffMember, *, reason: str | None = None
) -> None:
    await store.save_staff(tx, moved)
    tx.emit(staff_event("staff-member-moved", moved))
    await _void_tokens(tx, account, moved)
    _audit(tx, Action.UPDATE, moved, reason=reason)


async def _deactivate(tx: Transaction, account: Account, old: StaffMember, *, reason: str) -> StaffMember:
    gone = replace(old, version=old.version + 1, active=False, deactivated_at=tx.now)
    await store.save_staff(tx, gone)
    await close_account(tx, account)
    tx.emit(staff_event("staff-member-deactivated", gone))
    _audit(tx, Action.UPDATE, gone, reason=reason)
    return gone


async def renew_staff_password(
    tx: Transaction, desk: Desk, staff_id: UUID, *, caller: Principal
) -> Invitation:
    """Replace a forgotten password by an initial one and end all sessions."""
    account, member = await _lock(tx, staff_id, None, caller)
    invitation = await renew_password(tx, desk, account)
    _audit(tx, Action.UPDATE, member, reason="password-renewed")
    return invitation


async def reopen_login(tx: Transaction, desk: Desk, staff_id: UUID, *, caller: Principal) -> Invitation:
    """Open a login that closed because nobody used it. Raises LoginNotDormantError."""
    account, member = await _lock(tx, staff_id, None, caller)
    if not await is_closed(tx, staff_id):
        raise LoginNotDormantError
    await forget(tx, staff_id)
    invitation = await renew_password(tx, desk, replace(account, active=True))
    _audit(tx, Action.UPDATE, member, reason="reopened")
    return invitation


async def link_for_staff(
    tx: Transaction, desk: Desk, staff_id: UUID, *, send: bool | None, caller: Principal
) -> Link:
    """Make a link with which somebody chooses their password, or have it sent; earlier ones stop working."""
    account, _ = await _lock(tx, staff_id, None, caller)
    return await issue_link(tx, desk, account, send=send)


async def sent_link_of_staff(tx: Transaction, staff_id: UUID, *, caller: Principal) -> Row[Any]:
    """Return what became of the link that is being sent. Raises NotFoundError."""
    account, _ = await _lock(tx, staff_id, None, caller)
    return await find_sent_link(tx, account)


async def _lock(
    tx: Transaction, staff_id: UUID, expected_version: int | None, caller: Principal
) -> tuple[Account, StaffMember]:
    account = await store.lock_account(tx, staff_id)
    member = await store.lock_staff(tx, staff_id)
    if account is None or member is None:
        raise NotFoundError
    _require_places(caller, member.network, member.centre_ids, ())
    tx.require_version(member.version, expected_version)
    if not member.active:
        raise DeactivatedError
    return account, member


async def _check_position(tx: Transaction, position: Position, caller: Principal) -> None:
    """Refuse what doesn't exist and what the caller has no say in."""
    await require_roles(tx, position.roles, principal=AccountKind.STAFF)
    known = await store.known_centre_ids(tx, position.centre_ids)
    if unknown := unknown_among(position.centre_ids, known):
        raise UnknownReferenceError(reference="centre_ids", unknown=unknown)
    centre_of = await store.centres_of_departments(tx, position.department_ids)
    if unknown := unknown_among(position.department_ids, centre_of):
        raise UnknownReferenceError(reference="department_ids", unknown=unknown)
    _require_places(caller, position.network, position.centre_ids, centre_of.values())


def _require_places(
    caller: Principal, network: bool, centre_ids: Iterable[UUID], department_centre_ids: Iterable[UUID]
) -> None:
    if network and not caller.network:
        raise ForbiddenError("Only those who work in the whole network may say who else does.")
    for centre_id in {*centre_ids, *department_centre_ids}:
        caller.require_place(centre_id=centre_id)


async def _void_tokens(tx: Transaction, account: Account, member: StaffMember) -> None:
    valid_from = next_whole_second(tx.now)
    await store.save_account(tx, replace(account, tokens_valid_from=valid_from))
    tx.emit(
        tokens_revoked(
            member.staff_id,
            kind=account.kind.value,
            version=member.version,
            issued_before=valid_from,
            reason_code="rights-changed",
        )
    )


def _audit(tx: Transaction, action: Action, member: StaffMember, reason: str | None = None) -> None:
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Practitioner",
            resource_id=member.staff_id,
            reason=reason,
            details={"roles": " ".join(sorted(member.roles))},
        )
    )
