"""Roles as data: a copy of the taxonomy in contracts, refreshed at every start.

At the start and not in a migration: the taxonomy changes more often than the tables, and a replica of
the release before, starting late, must not put the older roles back.
"""

from collections.abc import Iterable
from pathlib import Path

from clinic_shared import contracts
from clinic_shared.database import Transaction

from clinic_identity import store
from clinic_identity.domain import Role, UnknownReferenceError, unknown_among


async def refresh_roles(tx: Transaction, contracts_dir: Path) -> None:
    """Store the taxonomy's roles and scopes, unless those of a newer release are there."""
    document = contracts.load(contracts_dir).taxonomy("roles")
    roles = [
        Role(
            code=code,
            taxonomy_version=int(document["version"]),
            title=role["title"],
            principal=role["principal"],
            scopes=tuple(role["scopes"]),
        )
        for code, role in document["roles"].items()
    ]
    await store.keep_roles(tx, roles)


async def require_roles(tx: Transaction, codes: Iterable[str], *, principal: str) -> None:
    """Raises UnknownReferenceError for roles that don't exist or aren't for this kind of principal."""
    codes = list(codes)
    known = {role.code for role in await store.list_roles(tx, codes) if role.principal == principal}
    if unknown := unknown_among(codes, known):
        raise UnknownReferenceError(reference="roles", unknown=unknown)


async def scopes_of(tx: Transaction, codes: Iterable[str]) -> frozenset[str]:
    return frozenset(scope for role in await store.list_roles(tx, codes) for scope in role.scopes)
