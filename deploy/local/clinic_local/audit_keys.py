"""The key that the audit log's checkpoints are verified with, where the commands look for it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clinic_local.errors import SetupError
from clinic_local.paths import run_dir
from clinic_local.state import read_env, root

TAMPERED, CANNOT_VERIFY = 1, 4
DATABASE_URL = "CLINIC_AUDIT_DATABASE_URL"
_SIGNING_KEY_FILE = "CLINIC_AUDIT_SIGNING_KEY_FILE"
PublicKeyFile = Annotated[
    Path | None, typer.Option("--public-key", help="PEM file of the key that verifies checkpoints")
]


@contextmanager
def giving_up() -> Iterator[None]:
    """Report what keeps us from checking, with an exit status that can't be taken for an answer."""
    try:
        yield
    except SetupError as error:
        print(error.report(), file=sys.stderr)
        raise typer.Exit(CANNOT_VERIFY) from error


def public_key_of(given: Path | None) -> Ed25519PublicKey:
    """Return the key of the file that was given, else of the signing key."""
    if given is not None:
        return _read_public(given)
    named = os.environ.get(_SIGNING_KEY_FILE)
    if named:
        return _read_signing(Path(named))
    # This system's key says nothing about another one's log.
    if os.environ.get(DATABASE_URL) not in {None, read_env(root()).get(DATABASE_URL)}:
        raise SetupError("audit", "the public key is needed", f"Give --public-key or {_SIGNING_KEY_FILE}.")
    return _read_signing(run_dir(root()) / "secrets" / "audit" / "checkpoint-key.pem")


def _read_public(file: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(_read(file))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SetupError("audit", f"{file} isn't a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SetupError("audit", f"{file} isn't an Ed25519 key")
    return key


def _read_signing(file: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SetupError("audit", f"{file} isn't a private key in PEM, without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SetupError("audit", f"{file} isn't an Ed25519 key")
    return key.public_key()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SetupError("audit", f"{file} can't be read: {error.strerror}") from error
