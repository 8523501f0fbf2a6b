"""What identity reads from its environment besides what every service does."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from clinic_shared.settings import ServiceSettings
from pydantic import Field, SecretStr, model_validator

from clinic_identity.domain import AccountKind, SessionLimits
from clinic_identity.oauth_domain import FHIR_PATH

PRODUCTION_MEMORY_KIB = 19_456
"""OWASP's least for argon2id with two passes."""


class IdentitySettings(ServiceSettings):
    bootstrap_admin_login: SecretStr | None = Field(
        default=None,
        description="login of the first administrator, made at start while there is no staff; not in"
        " production, where `clinic bootstrap admin` prints a link that works once",
    )
    bootstrap_admin_password: SecretStr | None = None
    enforce_password_change: bool | None = Field(
        default=None,
        description="whether an initial password opens nothing but the change of it; by default in production",
    )
    seal_passwords: bool = Field(
        default=False,
        description="whether password hashes are sealed, at their next use; not while a release before runs"
        " that can't open them",
    )
    breached_passwords_file: Path | None = Field(
        default=None, description="SHA-1 hashes in order, one a line, of passwords that are refused"
    )
    url: str = Field(default="", description="where people reach the clinic, for links")
    hand_over_links: bool = Field(
        default=True,
        description="whether links to choose a password are shown to whoever asks for one; otherwise they are"
        " only sent to their owners",
    )
    notice_new_devices: bool | None = Field(
        default=None,
        description="whether people are told of logins from devices never seen before; by default in production",
    )
    initial_password_seconds: int = Field(default=72 * 3600, ge=300)
    secret_overlap_seconds: int = Field(
        default=24 * 3600, ge=0, description="how long a replaced client secret goes on working"
    )
    password_iterations: int = Field(default=2, ge=1)
    password_memory_kib: int = Field(default=47_104, ge=8)
    password_threads: int | None = Field(
        default=None, ge=1, description="password checks at a time; one per processor by default"
    )
    password_queue: int = Field(default=50, ge=0, description="checks that may wait before logins get 503")
    sign_in_places_file: Path | None = Field(
        default=None,
        description="which roles may log in from which networks and countries (README.md: places)",
    )
    country_database_file: Path | None = Field(
        default=None, description="MaxMind DB of countries by address, for the rules that name countries"
    )
    failures_per_address: int = Field(
        default=20, ge=1, description="failed logins from one address within five minutes"
    )
    forgotten_per_address: int = Field(
        default=10,
        ge=1,
        description="requests of a link for a forgotten password from one address in five minutes",
    )
    site_name: str = Field(default="Polyclinic", description="what authenticator apps and browsers show")
    passkey_rp_id: str = Field(
        default="", description="domain that passkeys are bound to, for good; without one they aren't offered"
    )
    passkey_origins: str = Field(
        default="",
        description="pages' origins that may ask for passkeys, comma separated: https://clinic.example",
    )
    client_keys_from_loopback: bool = Field(
        default=False, description="whether clients' keys may be published on this machine; not in production"
    )
    mtls_url: str = Field(
        default="",
        description="where clients are asked for certificates (RFC 8705), if anywhere; the gateway's own address"
        " or another",
    )
    client_authorities_file: Path | None = Field(
        default=None,
        description="PEM; who vouches for the names in clients' certificates, with lists of what they revoked;"
        " read again when it changes",
    )
    sso_issuer: str = Field(
        default="", description="the operator's identity provider (OpenID Connect), if any"
    )
    sso_client_id: str = Field(default="", description="what we are registered as there")
    sso_client_secret: SecretStr | None = None
    staff_idle_seconds: int = Field(default=15 * 60, ge=60)
    staff_session_seconds: int = Field(default=12 * 3600, ge=60)
    patient_idle_seconds: int = Field(default=30 * 60, ge=60)
    patient_session_seconds: int = Field(default=24 * 3600, ge=60)
    dormant_days: int = Field(
        default=45, ge=2, description="so long unused, a member of staff's login closes"
    )
    dormant_warning_days: int = Field(default=7, ge=1, description="so long before, it is told")

    @model_validator(mode="after")
    def _refuse_weak_production(self) -> Self:
        if self.environment == "production" and self.password_memory_kib < PRODUCTION_MEMORY_KIB:
            raise ValueError(f"password_memory_kib is at least {PRODUCTION_MEMORY_KIB} in production")
        if self.environment == "production" and self.bootstrap_admin_password is not None:
            raise ValueError("production has no bootstrap_admin_password: run `clinic bootstrap admin`")
        if self.environment == "production" and self.client_keys_from_loopback:
            raise ValueError("client_keys_from_loopback is for development")
        if bool(self.sso_issuer) != bool(self.sso_client_id):
            raise ValueError("give sso_issuer and sso_client_id, or neither")
        if self.environment == "production" and self.sso_issuer.startswith("http:"):
            raise ValueError("sso_issuer is https in production")
        if self.dormant_warning_days >= self.dormant_days:
            raise ValueError("dormant_warning_days is less than dormant_days")
        if (self.bootstrap_admin_login is None) != (self.bootstrap_admin_password is None):
            raise ValueError("give bootstrap_admin_login and bootstrap_admin_password, or neither")
        return self

    @property
    def password_change_is_enforced(self) -> bool:
        if self.enforce_password_change is not None:
            return self.enforce_password_change
        return self.environment == "production"

    @property
    def new_devices_are_noticed(self) -> bool:
        if self.notice_new_devices is not None:
            return self.notice_new_devices
        return self.environment == "production"

    @property
    def initial_password_life(self) -> timedelta:
        return timedelta(seconds=self.initial_password_seconds)

    @property
    def secret_overlap(self) -> timedelta:
        return timedelta(seconds=self.secret_overlap_seconds)

    @property
    def token_endpoint(self) -> str:
        return f"{self.token_issuer}/oauth2/token"

    @property
    def authorization_endpoint(self) -> str:
        return f"{self.token_issuer}/oauth2/authorize"

    @property
    def fhir_base(self) -> str:
        return self.token_issuer + FHIR_PATH

    @property
    def passkey_origin_list(self) -> tuple[str, ...]:
        return tuple(origin.strip() for origin in self.passkey_origins.split(",") if origin.strip())

    def session_limits(self, kind: AccountKind) -> SessionLimits:
        if kind is AccountKind.STAFF:
            idle, longest = self.staff_idle_seconds, self.staff_session_seconds
        else:
            idle, longest = self.patient_idle_seconds, self.patient_session_seconds
        return SessionLimits(idle=timedelta(seconds=idle), longest=timedelta(seconds=longest))
