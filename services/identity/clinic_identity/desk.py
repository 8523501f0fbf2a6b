"""What the use cases have at hand besides a transaction. Made once per process (`app.py`)."""

from dataclasses import dataclass

from clinic_shared.database import Database

from clinic_identity.keys import KeyRing
from clinic_identity.passkeys import PasskeySite
from clinic_identity.passwords import PasswordHasher
from clinic_identity.secret_box import SecretBox
from clinic_identity.settings import IdentitySettings
from clinic_identity.sign_in_policy import SignInPolicy


@dataclass(frozen=True, kw_only=True)
class Desk:
    settings: IdentitySettings
    keys: KeyRing
    secrets: SecretBox
    sign_in: SignInPolicy
    passkeys: PasskeySite
    passwords: PasswordHasher
    database: Database
    """For logins: they hash between two transactions, so as not to hold a connection meanwhile."""
