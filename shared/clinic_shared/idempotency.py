"""A write that is repeated with its Idempotency-Key takes effect once and answers the same.

The key's row is inserted before anything else in the transaction of the write: a concurrent repeat
waits for it and then finds the answer. Only successful answers are kept, sealed, for 24 hours; after a
failure nothing remains, and the repeat is a first try.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from fastapi import Request, Response
from sqlalchemy import (
    Column,
    DateTime,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from clinic_shared.crash import mutated
from clinic_shared.database import Transaction
from clinic_shared.encryption.ciphers import Place
from clinic_shared.errors import DomainError
from clinic_shared.events import runtime_metadata, type_of_json
from clinic_shared.principal import Principal
from clinic_shared.sealing import seal_bytes, unseal_bytes

KEEP = timedelta(hours=24)
REPLAY_HEADER = "Idempotent-Replay"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NOT_KEPT = {"content-length", "set-cookie", "date"}

idempotency_key = Table(
    "idempotency_key",
    runtime_metadata,
    Column("principal", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("headers", type_of_json),
    Column("body", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


class Idempotency(StrEnum):
    """What a route does with the header: ignores it, honours it, insists on it."""

    NONE = "none"
    ACCEPTED = "accepted"
    REQUIRED = "required"


class KeyRequiredError(DomainError):
    """Without a key, a repeated request could take effect twice."""

    slug: ClassVar[str] = "idempotency-key-required"
    title: ClassVar[str] = "This request needs an Idempotency-Key header"
    status: ClassVar[int] = 400


class KeyInvalidError(DomainError):
    """A key has 1 to 255 printable ASCII characters, and there is one of it."""

    slug: ClassVar[str] = "idempotency-key-invalid"
    title: ClassVar[str] = "The Idempotency-Key header is not valid"
    status: ClassVar[int] = 400


class KeyReusedError(DomainError):
    """The key came with a different method, path or body within the last 24 hours."""

    slug: ClassVar[str] = "idempotency-key-reused"
    title: ClassVar[str] = "The Idempotency-Key was used for another request"
    status: ClassVar[int] = 422


_claimed = idempotency_key.c
_new = insert(idempotency_key)
# Built once: building these expressions for each request costs a quarter of a millisecond.
_TAKE = _new.on_conflict_do_update(
    constraint=idempotency_key.primary_key,
    set_={
        "fingerprint": _new.excluded.fingerprint,
        "status": None,
        "headers": None,
        "body": None,
        "created_at": func.now(),
    },
    # A key that outlived its day but wasn't swept yet is free again.
    where=_claimed.created_at < func.now() - KEEP,
).returning(_claimed.key)
_IS_CLAIM = (
    (_claimed.principal == bindparam("of_principal"))
    & (_claimed.route == bindparam("of_route"))
    & (_claimed.key == bindparam("of_key"))
)
_FIND = select(_claimed.fingerprint, _claimed.status, _claimed.headers, _claimed.body).where(_IS_CLAIM)
_FREE = delete(idempotency_key).where(_IS_CLAIM)
_ANSWER = (
    update(idempotency_key)
    .where(_IS_CLAIM)
    .values(status=bindparam("given"), headers=bindparam("with_headers"), body=bindparam("with_body"))
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A key in use: whose, where, and for exactly which request."""

    principal: str
    route: str
    key: str
    fingerprint: bytes

    @property
    def identity(self) -> dict[str, str]:
        return {"of_principal": self.principal, "of_route": self.route, "of_key": self.key}


def read_key(request: Request, mode: Idempotency) -> str | None:
    """Return the request's key. Raises KeyRequiredError, KeyInvalidError."""
    if mode is Idempotency.NONE:
        return None
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        if mode is Idempotency.REQUIRED:
            raise KeyRequiredError
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise KeyInvalidError
    return keys[0]


def claim_of(request: Request, *, principal: Principal, route: str, key: str, body: bytes) -> Claim:
    """Describe the request so that any other one with this key is noticed."""
    digest = hashlib.sha256()
    for part in (
        request.method.encode(),
        request.scope["path"].encode(),
        request.scope["query_string"],
        body,
    ):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return Claim(
        principal=f"{principal.kind}:{principal.subject}", route=route, key=key, fingerprint=digest.digest()
    )


async def take(transaction: Transaction, claim: Claim) -> Response | None:
    """Claim the key for this transaction, or return the answer that was given before.

    Waits for a concurrent request with the same key. Raises KeyReusedError.
    """
    if mutated("idempotency-off"):
        return None
    claimed = await transaction.execute(_TAKE, asdict(claim))
    if claimed.one_or_none() is not None:
        return None
    return await _replay(transaction, claim)


async def _replay(transaction: Transaction, claim: Claim) -> Response:
    row = (await transaction.execute(_FIND, claim.identity)).one()
    if row.fingerprint != claim.fingerprint:
        raise KeyReusedError
    response = Response(
        unseal_bytes(transaction.keyring, _place(transaction, claim), bytes(row.body)), status_code=row.status
    )
    response.raw_headers.extend((name.encode(), value.encode("latin-1")) for name, value in row.headers)
    response.headers[REPLAY_HEADER] = "true"
    return response


async def keep(transaction: Transaction, claim: Claim, response: Response) -> None:
    """Store a successful answer; free the key after any other."""
    if not 200 <= response.status_code < 300:  # noqa: PLR2004  # RFC 9110, 15.3
        await transaction.execute(_FREE, claim.identity)
        return
    headers = [[name, value] for name, value in response.headers.items() if name not in _NOT_KEPT]
    answer = {
        "given": response.status_code,
        "with_headers": headers,
        "with_body": seal_bytes(transaction.keyring, _place(transaction, claim), bytes(response.body)),
    }
    await transaction.execute(_ANSWER, {**claim.identity, **answer})


def _place(transaction: Transaction, claim: Claim) -> Place:
    return Place(transaction.service, "idempotency_key", f"{claim.principal}|{claim.route}|{claim.key}")


async def purge_expired(transaction: Transaction) -> int:
    """Remove what is older than 24 hours; returns how many."""
    result = await transaction.execute(
        delete(idempotency_key).where(idempotency_key.c.created_at < func.now() - KEEP)
    )
    return result.rowcount
