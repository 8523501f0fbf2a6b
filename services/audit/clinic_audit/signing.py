"""Checkpoints: a signed statement of the log's size and root, every few seconds while it grows.

The key is one that whoever administers the database doesn't have. In development it is made at the
first start; in production it must be given.
"""

import asyncio

from clinic_shared.database import Transaction
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.key_files import keep_first, marked_for_development
from clinic_shared.loops import keep_running, pause
from clinic_shared.production import is_for_development
from clinic_shared.service import Runtime
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clinic_audit import store
from clinic_audit.domain import Checkpoint, signed_text
from clinic_audit.events import checkpoint_signed
from clinic_audit.settings import AuditSettings

ALGORITHM = "Ed25519"
NAME = "checkpoints"
INTERVAL_SECONDS = 10
MOST_UNSIGNED = 1000
"""Records; so many are signed at once, whatever the time."""


class SigningKeyMissingError(RuntimeError):
    """Production doesn't make keys by itself."""


class Signer:
    def __init__(self, key: Ed25519PrivateKey, *, log_origin: str) -> None:
        self._key = key
        self.log_origin = log_origin
        public = self.public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.key_id = public.hex()[:16]

    @property
    def public_key(self) -> Ed25519PublicKey:
        return self._key.public_key()

    def sign(self, text: bytes) -> bytes:
        return self._key.sign(text)


def load_signer(settings: AuditSettings) -> Signer:
    """Read the key, or make one in development. Raises SigningKeyMissingError."""
    path = settings.signing_key_file
    if path is None or not path.exists():
        if settings.environment == "production":
            raise SigningKeyMissingError("checkpoint-key.pem is missing in CLINIC_SECRETS_DIR")
        if path is None:
            return Signer(Ed25519PrivateKey.generate(), log_origin=settings.audit_log_origin)
        keep_first(path, marked_for_development(new_signing_key()))
    pem = path.read_bytes()
    if settings.environment == "production" and is_for_development(pem.decode("ascii", "replace")):
        raise SigningKeyMissingError("the audit signing key was made for development, refused in production")
    loaded = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise SigningKeyMissingError("the audit signing key must be an Ed25519 key")
    return Signer(loaded, log_origin=settings.audit_log_origin)


def new_signing_key() -> bytes:
    """Return a private Ed25519 key in PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


async def sign_checkpoints(runtime: Runtime, stop: asyncio.Event) -> None:
    """Sign a checkpoint whenever the log has grown, at most every ten seconds."""
    health = Health.of(runtime)

    async def work() -> None:
        while not stop.is_set():
            async with runtime.database.transaction() as tx:
                await sign_checkpoint(tx, runtime.get(Signer))
            health.report(NAME, None)
            await pause(stop, INTERVAL_SECONDS)

    await keep_running(NAME, stop, work, health)


async def sign_if_many(tx: Transaction, signer: Signer) -> None:
    """Sign without waiting for the interval when many records came."""
    tree = await store.read_tree(tx)
    if tree.size - await store.last_checkpoint_size(tx) >= MOST_UNSIGNED:
        await sign_checkpoint(tx, signer)


async def sign_checkpoint(tx: Transaction, signer: Signer) -> Checkpoint | None:
    """Sign the log as it is now; None when the last checkpoint says it already."""
    tree = await store.lock_tree(tx)
    if tree.size == await store.last_checkpoint_size(tx):
        return None
    checkpoint = Checkpoint(
        checkpoint_id=uuid7(),
        log_origin=signer.log_origin,
        tree_size=tree.size,
        root_hash=tree.root,
        signed_at=tx.now,
        key_id=signer.key_id,
        algorithm=ALGORITHM,
        signature=signer.sign(signed_text(signer.log_origin, tree.size, tree.root)),
    )
    await store.add_checkpoint(tx, checkpoint)
    tx.emit(checkpoint_signed(checkpoint))
    return checkpoint
