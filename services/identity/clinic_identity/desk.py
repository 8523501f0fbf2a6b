"""What the use cases have at hand besides a transaction. Made once per process (`app.py`)."""

from collections.abc import Container, Iterable
from dataclasses import dataclass

from clinic_shared import contracts
from clinic_shared.database import Database

from clinic_identity.client_certificates import ClientCertificates
from clinic_identity.client_keys import ClientKeys
from clinic_identity.domain import Account, SessionLimits
from clinic_identity.keys import KeyRing
from clinic_identity.oidc_provider import OidcProvider
from clinic_identity.passkeys import PasskeySite
from clinic_identity.passwords import PasswordHasher
from clinic_identity.places import Places
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
    places: Places
    passwords: PasswordHasher
    breached: Container[str]
    """Passwords that are known from breaches elsewhere, as far as the operator gave us a list."""
    client_keys: ClientKeys
    certificates: ClientCertificates
    provider: OidcProvider | None
    """Of the operator, for single sign-on."""
    database: Database
    """For logins: they hash between two transactions, so as not to hold a connection meanwhile."""

    @property
    def known_scopes(self) -> frozenset[str]:
        return contracts.load(self.settings.contracts_dir).scopes()

    def session_limits(self, account: Account, roles: Iterable[str]) -> SessionLimits:
        """Return how long a session may idle and last: what the settings say, or the roles if that is less."""
        limits = self.settings.session_limits(account.kind)
        if not self.sign_in.enforced:
            return limits
        rules = self.sign_in.rules_of(roles)
        return SessionLimits(idle=min(limits.idle, rules.idle), longest=min(limits.longest, rules.longest))
