"""`data-keys.json` in a service's folder of secrets: its key-encryption keys, the last one current.

Keys lie there as their provider wraps them. Outside production the file is made at the first start and marked;
production refuses that mark, and a missing file.
"""

import os
import secrets
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from clinic_shared.encryption.ciphers import KEY_BYTES, KEY_ID_BYTES, KeyEncryptionKey, KeyId
from clinic_shared.encryption.providers import KeyProvider, ProviderError, unwrap_in_clear, wrap_in_clear
from clinic_shared.key_files import keep_first
from clinic_shared.production import DEVELOPMENT_MARK, is_for_development
from clinic_shared.settings import KeySettings

FILE = "data-keys.json"
_MADE_FOR_ITSELF = f"{DEVELOPMENT_MARK}keys: made by a machine for itself"
# For processes without a folder of secrets: tests, and a service that somebody starts by hand.
_WITHOUT_FOLDER = KeyEncryptionKey(KeyId(b"dev-only"), DEVELOPMENT_MARK.encode().ljust(KEY_BYTES, b"."))

_INDEX_WITHOUT_FOLDER = f"{DEVELOPMENT_MARK}index".encode().ljust(KEY_BYTES, b".")


class DataKeysMissingError(RuntimeError):
    """The keys can't be used as they are: missing, unreadable, or made for development."""


class StoredKey(BaseModel):
    """One key, as its provider wraps it."""

    model_config = ConfigDict(extra="forbid")

    key_id: Annotated[str, Field(pattern=f"^[0-9a-f]{{{2 * KEY_ID_BYTES}}}$")]
    created_at: AwareDatetime
    wrapped: str


class StoredKeys(BaseModel):
    """The file. Unknown members are refused: a mistyped one would be a key that nobody finds."""

    model_config = ConfigDict(extra="forbid")

    note: str = ""
    provider: Literal["file", "vault", "kms"] = "file"
    encryption: Annotated[list[StoredKey], Field(min_length=1)]
    index: Annotated[list[StoredKey], Field(min_length=1)]
    """Of blind indexes. There is one: another would need every index computed again."""

    @model_validator(mode="after")
    def _each_key_once(self) -> Self:
        ids = [key.key_id for key in (*self.encryption, *self.index)]
        if len(ids) != len(set(ids)):
            raise ValueError("a key stands in the file twice")
        return self


def new_file(*, note: str = "") -> str:
    """Return a file with new keys that lie in it in clear."""
    return StoredKeys(note=note, encryption=[_new_key()], index=[_new_key()]).model_dump_json(indent=1) + "\n"


def _new_key() -> StoredKey:
    return StoredKey(
        key_id=secrets.token_hex(KEY_ID_BYTES),
        created_at=datetime.now(UTC),
        wrapped=wrap_in_clear(os.urandom(KEY_BYTES)),
    )


async def wrapped_anew(stored: StoredKeys, old: KeyProvider, new: KeyProvider, *, service: str) -> StoredKeys:
    """Return the same keys as another provider wraps them: nothing that they encrypted changes."""

    async def again(keys: list[StoredKey], purpose: str) -> list[StoredKey]:
        return [
            key.model_copy(
                update={
                    "wrapped": await new.wrap(await old.unwrap(key.wrapped, purpose=purpose), purpose=purpose)
                }
            )
            for key in keys
        ]

    return StoredKeys(
        note=stored.note,
        provider=new.name,
        encryption=await again(stored.encryption, f"{service}/encryption"),
        index=await again(stored.index, f"{service}/index"),
    )


async def with_new_key(stored: StoredKeys, provider: KeyProvider, *, service: str) -> StoredKeys:
    """Return the keys with another key for encryption. It opens from now on; the one that was in use stays so.

    Processes read files at different times: a key that one of them used at once, others couldn't open.
    """
    wrapped = await provider.wrap(os.urandom(KEY_BYTES), purpose=f"{service}/encryption")
    added = _new_key().model_copy(update={"wrapped": wrapped})
    return stored.model_copy(update={"encryption": [added, *stored.encryption]})


def in_use(stored: StoredKeys) -> StoredKey:
    """Return the key that encrypts what is stored from now on."""
    return stored.encryption[-1]


def without_key(stored: StoredKeys, key_id: str) -> StoredKeys:
    """Return the keys without one that encrypts nothing any more. Raises DataKeysMissingError for the current one."""
    if in_use(stored).key_id == key_id:
        raise DataKeysMissingError("the current key can't be withdrawn")
    kept = [key for key in stored.encryption if key.key_id != key_id]
    return stored.model_copy(update={"encryption": kept})


def write_file(file: Path, stored: StoredKeys) -> None:
    """Replace the file as a whole; whoever reads sees the old or the new one."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{FILE}.", delete=False) as written:
        written.write(stored.model_dump_json(indent=1).encode() + b"\n")
        written.flush()
        os.fsync(written.fileno())
    Path(written.name).replace(file)


def read_file(file: Path) -> StoredKeys:
    """Raises DataKeysMissingError, which never says what stands in the file."""
    try:
        return StoredKeys.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataKeysMissingError(f"{file.name} can't be read: {error.strerror}") from None
    except ValidationError as error:
        fields = sorted({".".join(map(str, problem["loc"][:1])) or "the file" for problem in error.errors()})
        raise DataKeysMissingError(f"{file.name} is not a file of keys: {', '.join(fields)}") from None


def find_keys(settings: KeySettings) -> StoredKeys | None:
    """Return a service's keys; outside production they are made where there are none.

    None without a folder to keep them in. Raises DataKeysMissingError.
    """
    production = settings.environment == "production"
    if settings.secrets_dir is None:
        if production:
            raise DataKeysMissingError(f"{FILE} is missing: CLINIC_SECRETS_DIR is not set")
        return None
    file = settings.secrets_dir / FILE
    if not production and not file.exists():
        keep_first(file, new_file(note=_MADE_FOR_ITSELF).encode())
    stored = read_file(file)
    if production and is_for_development(stored.note):
        raise DataKeysMissingError(f"{FILE} was made for development, refused in production")
    return stored


async def unwrapped(
    stored: StoredKeys | None, provider: KeyProvider, *, service: str
) -> Sequence[KeyEncryptionKey]:
    """Return the key-encryption keys, the current one last. Raises ProviderError."""
    if stored is None:
        return [_WITHOUT_FOLDER]
    return [
        KeyEncryptionKey(
            KeyId(bytes.fromhex(key.key_id)),
            _of_right_length(await provider.unwrap(key.wrapped, purpose=f"{service}/encryption")),
        )
        for key in stored.encryption
    ]


async def unwrapped_index(stored: StoredKeys | None, provider: KeyProvider, *, service: str) -> bytes:
    """Return the key of blind indexes. Raises ProviderError."""
    if stored is None:
        return _INDEX_WITHOUT_FOLDER
    wrapped = stored.index[-1].wrapped
    return _of_right_length(await provider.unwrap(wrapped, purpose=f"{service}/index"))


def keys_in_clear(file: Path) -> list[KeyEncryptionKey]:
    """Return the keys of a file that has them in clear, for tools that read a database beside its service."""
    return [
        KeyEncryptionKey(KeyId(bytes.fromhex(key.key_id)), _of_right_length(unwrap_in_clear(key.wrapped)))
        for key in read_file(file).encryption
    ]


def index_key_in_clear(file: Path) -> bytes:
    """Return the key of blind indexes of such a file."""
    return _of_right_length(unwrap_in_clear(read_file(file).index[-1].wrapped))


def _of_right_length(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ProviderError("a key has not the length of an AES-256 key")
    return key
