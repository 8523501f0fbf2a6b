"""Queries on organisation, roles, people and clients. Sessions and throttling are in `session_store.py`."""

from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

from clinic_shared.database import Transaction
from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from clinic_identity.certificate_rules import CertificateRule
from clinic_identity.domain import (
    Account,
    AccountKind,
    Centre,
    Department,
    Role,
    StaffMember,
)
from clinic_identity.oauth_domain import Client, ClientKind
from clinic_identity.tables import account, centre, client, department, legal_entity, patient, role, staff

LEGAL_ENTITY_ONCE = "legal_entity_name_once"
CENTRE_CODE_ONCE = "centre_code_once"
DEPARTMENT_CODE_ONCE = "department_code_once"
LOGIN_ONCE = "account_login_once"
PATIENT_ONCE = "account_patient_once"
CLIENT_ID_ONCE = "client_id_once"

# -- organisation


async def add_legal_entity(tx: Transaction, legal_entity_id: UUID, name: str) -> None:
    await tx.execute(
        insert(legal_entity).values(legal_entity_id=legal_entity_id, name=name, registered_at=tx.now)
    )


async def find_legal_entity_name(tx: Transaction, legal_entity_id: UUID) -> str | None:
    statement = select(legal_entity.c.name).where(legal_entity.c.legal_entity_id == legal_entity_id)
    row = await tx.fetch_one(statement)
    return None if row is None else str(row.name)


async def add_centre(tx: Transaction, new: Centre) -> None:
    await tx.execute(insert(centre).values(_centre_values(new)))


async def save_centre(tx: Transaction, changed: Centre) -> None:
    await tx.execute(
        update(centre).where(centre.c.centre_id == changed.centre_id).values(_centre_values(changed))
    )


async def find_centre(tx: Transaction, centre_id: UUID) -> Centre | None:
    row = await tx.fetch_one(_centres().where(centre.c.centre_id == centre_id))
    return None if row is None else _centre(row)


async def lock_centre(tx: Transaction, centre_id: UUID) -> Centre | None:
    statement = _centres().where(centre.c.centre_id == centre_id).with_for_update(of=centre)
    row = await tx.fetch_one(statement)
    return None if row is None else _centre(row)


async def list_centres(tx: Transaction, *, after: UUID | None, limit: int) -> list[Centre]:
    statement = _centres().order_by(centre.c.centre_id).limit(limit)
    if after is not None:
        statement = statement.where(centre.c.centre_id > after)
    return [_centre(row) for row in await tx.fetch_all(statement)]


async def add_department(tx: Transaction, new: Department) -> None:
    await tx.execute(insert(department).values(asdict(new)))


async def save_department(tx: Transaction, changed: Department) -> None:
    await tx.execute(
        update(department).where(department.c.department_id == changed.department_id).values(asdict(changed))
    )


async def find_department(tx: Transaction, department_id: UUID) -> Department | None:
    row = await tx.fetch_one(select(department).where(department.c.department_id == department_id))
    return None if row is None else Department(**row._mapping)  # noqa: SLF001


async def lock_department(tx: Transaction, department_id: UUID) -> Department | None:
    statement = select(department).where(department.c.department_id == department_id).with_for_update()
    row = await tx.fetch_one(statement)
    return None if row is None else Department(**row._mapping)  # noqa: SLF001


async def list_departments(
    tx: Transaction, *, centre_id: UUID | None, after: UUID | None, limit: int
) -> list[Department]:
    statement = select(department).order_by(department.c.department_id).limit(limit)
    if centre_id is not None:
        statement = statement.where(department.c.centre_id == centre_id)
    if after is not None:
        statement = statement.where(department.c.department_id > after)
    return [Department(**row._mapping) for row in await tx.fetch_all(statement)]  # noqa: SLF001


async def known_centre_ids(tx: Transaction, centre_ids: Iterable[UUID]) -> set[UUID]:
    statement = select(centre.c.centre_id).where(centre.c.centre_id.in_(list(centre_ids)))
    return {row.centre_id for row in await tx.fetch_all(statement)}


async def centres_of_departments(tx: Transaction, department_ids: Iterable[UUID]) -> dict[UUID, UUID]:
    """Return the centre of each department that is open."""
    statement = select(department.c.department_id, department.c.centre_id).where(
        department.c.department_id.in_(list(department_ids)), department.c.status == "active"
    )
    return {row.department_id: row.centre_id for row in await tx.fetch_all(statement)}


# -- roles


async def keep_roles(tx: Transaction, roles: Iterable[Role]) -> None:
    """Store the taxonomy's roles, unless a newer release's are there."""
    statement = upsert(role)
    # In the order of codes: replicas that start together must not wait for each other in a circle.
    for one in sorted(roles, key=lambda known: known.code):
        await tx.execute(
            statement.values(**asdict(one) | {"scopes": list(one.scopes)}).on_conflict_do_update(
                index_elements=[role.c.code],
                set_={name: statement.excluded[name] for name in ("taxonomy_version", "title", "scopes")},
                where=role.c.taxonomy_version <= statement.excluded.taxonomy_version,
            )
        )


async def list_roles(tx: Transaction, codes: Iterable[str] | None = None) -> list[Role]:
    statement = select(role).order_by(role.c.code)
    if codes is not None:
        statement = statement.where(role.c.code.in_(list(codes)))
    rows = await tx.fetch_all(statement)
    return [Role(**dict(row._mapping) | {"scopes": tuple(row.scopes)}) for row in rows]  # noqa: SLF001


# -- people


async def is_patient_known(tx: Transaction, patient_id: UUID) -> bool:
    statement = select(patient.c.patient_id).where(patient.c.patient_id == patient_id, patient.c.active)
    return await tx.fetch_one(statement) is not None


async def add_account(tx: Transaction, new: Account) -> None:
    await tx.execute(insert(account).values(asdict(new)))


async def save_account(tx: Transaction, changed: Account) -> None:
    await tx.execute(
        update(account).where(account.c.account_id == changed.account_id).values(asdict(changed))
    )


async def find_account(tx: Transaction, account_id: UUID) -> Account | None:
    return await _one_account(tx, select(account).where(account.c.account_id == account_id))


async def find_account_by_login(tx: Transaction, login: str) -> Account | None:
    return await _one_account(tx, select(account).where(account.c.login == login))


async def lock_account(tx: Transaction, account_id: UUID) -> Account | None:
    return await _one_account(tx, select(account).where(account.c.account_id == account_id).with_for_update())


async def lock_accounts_of_patients(tx: Transaction, patient_ids: Collection[UUID]) -> list[Account]:
    """Lock the logins of these patients, in the order of ids."""
    theirs = select(account).where(account.c.patient_id.in_(patient_ids)).order_by(account.c.account_id)
    return [_account(row) for row in await tx.fetch_all(theirs.with_for_update())]


async def add_staff(tx: Transaction, new: StaffMember) -> None:
    await tx.execute(insert(staff).values(_staff_values(new)))


async def save_staff(tx: Transaction, changed: StaffMember) -> None:
    await tx.execute(update(staff).where(staff.c.staff_id == changed.staff_id).values(_staff_values(changed)))


async def find_staff(tx: Transaction, staff_id: UUID) -> StaffMember | None:
    row = await tx.fetch_one(select(staff).where(staff.c.staff_id == staff_id))
    return None if row is None else _staff(row)


async def lock_staff(tx: Transaction, staff_id: UUID) -> StaffMember | None:
    row = await tx.fetch_one(select(staff).where(staff.c.staff_id == staff_id).with_for_update())
    return None if row is None else _staff(row)


async def list_staff(
    tx: Transaction,
    *,
    centre_id: UUID | None,
    department_id: UUID | None,
    after: UUID | None,
    limit: int,
) -> list[StaffMember]:
    statement = select(staff).order_by(staff.c.staff_id).limit(limit)
    if centre_id is not None:
        statement = statement.where(staff.c.centre_ids.contains([centre_id]))
    if department_id is not None:
        statement = statement.where(staff.c.department_ids.contains([department_id]))
    if after is not None:
        statement = statement.where(staff.c.staff_id > after)
    return [_staff(row) for row in await tx.fetch_all(statement)]


async def logins_of(tx: Transaction, account_ids: Iterable[UUID]) -> dict[UUID, str]:
    statement = select(account.c.account_id, account.c.login).where(
        account.c.account_id.in_(list(account_ids))
    )
    return {row.account_id: row.login for row in await tx.fetch_all(statement)}


async def has_staff(tx: Transaction) -> bool:
    return await tx.fetch_one(select(staff.c.staff_id).limit(1)) is not None


# -- OAuth2 clients


async def add_client(tx: Transaction, new: Client) -> None:
    await tx.execute(insert(client).values(_client_values(new)))


async def save_client(tx: Transaction, changed: Client) -> None:
    await tx.execute(update(client).where(client.c.id == changed.id).values(_client_values(changed)))


async def find_client(tx: Transaction, client_id: str) -> Client | None:
    row = await tx.fetch_one(select(client).where(client.c.client_id == client_id))
    return None if row is None else _client(row)


async def lock_client(tx: Transaction, key: UUID) -> Client | None:
    row = await tx.fetch_one(select(client).where(client.c.id == key).with_for_update())
    return None if row is None else _client(row)


async def list_clients(tx: Transaction, *, after: UUID | None, limit: int) -> list[Client]:
    statement = select(client).order_by(client.c.id).limit(limit)
    if after is not None:
        statement = statement.where(client.c.id > after)
    return [_client(row) for row in await tx.fetch_all(statement)]


# -- rows to values and back


def _centres() -> Select[Any]:
    return select(centre, legal_entity.c.name.label("legal_entity_name")).join(
        legal_entity, legal_entity.c.legal_entity_id == centre.c.legal_entity_id
    )


def _centre(row: Row[Any]) -> Centre:
    return Centre(**row._mapping)  # noqa: SLF001


def _centre_values(value: Centre) -> dict[str, Any]:
    values = asdict(value)
    del values["legal_entity_name"]
    return values


async def _one_account(tx: Transaction, statement: Select[Any]) -> Account | None:
    row = await tx.fetch_one(statement)
    return None if row is None else _account(row)


def _account(row: Row[Any]) -> Account:
    return Account(**dict(row._mapping) | {"kind": AccountKind(row.kind)})  # noqa: SLF001  # its public name


def _staff(row: Row[Any]) -> StaffMember:
    lists = {name: tuple(getattr(row, name)) for name in ("roles", "centre_ids", "department_ids")}
    return StaffMember(**dict(row._mapping) | lists)  # noqa: SLF001


def _staff_values(value: StaffMember) -> dict[str, Any]:
    lists = {name: list(getattr(value, name)) for name in ("roles", "centre_ids", "department_ids")}
    return asdict(value) | lists


_CLIENT_LISTS = ("scopes", "centre_ids", "redirect_uris", "user_scopes")


def _client(row: Row[Any]) -> Client:
    lists = {name: tuple(getattr(row, name)) for name in _CLIENT_LISTS}
    rule = row.certificate and CertificateRule.of(row.certificate)
    made = {"kind": ClientKind(row.kind), "certificate": rule}
    return Client(**dict(row._mapping) | lists | made)  # noqa: SLF001


def _client_values(value: Client) -> dict[str, Any]:
    return asdict(value) | {name: list(getattr(value, name)) for name in _CLIENT_LISTS}
